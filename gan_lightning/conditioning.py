"""What the classes of the images are used for. How the networks look at them: `models/labels.py`.

Letters: B images, N samples, Z latent, K classes.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

Output = Tensor | tuple[Tensor, Tensor]

MOST_ROWS = 50  # of a picture with a row for each class


class Conditioning:
    """Both networks are handed the class of each image, and generated images are of the classes of the real ones.

    A discriminator that classifies as well (AC-GAN) adds a loss that both networks minimise.
    Odena et al. 2017, section 3. https://arxiv.org/abs/1610.09585

    `L_C = -E[log P(C = c | x)] - E[log P(C = c | G(z, c))]`, in L_D; of L_G the second term alone depends on G.

    Args:
        num_classes: K; 0: there are no classes, networks get None for labels.
        weight: of L_C beside the loss of real against generated; 1 in the paper.

    Raises:
        ValueError: if num_classes is negative or 1, or weight is not positive.
    """

    def __init__(self, num_classes: int = 0, weight: float = 1.0) -> None:
        if num_classes < 0 or num_classes == 1:
            raise ValueError(f"num_classes={num_classes} must be 2 or more; for no classes: conditioning=none")
        if weight <= 0:
            raise ValueError(f"weight={weight} must be positive; try 1")
        self.num_classes = num_classes
        self.weight = weight

    def split(self, output: Output, labels: Tensor | None) -> tuple[Tensor, Tensor | float]:
        """What D has returned -> its (B,) logits, and what is added to the loss of whoever is up."""
        if isinstance(output, Tensor):
            return output, 0.0
        logits, class_logits = output
        assert labels is not None
        return logits, self.weight * cross_entropy(class_logits, labels)

    def in_turn(self, num: int, start: int = 0) -> Tensor | None:
        """Classes for samples number `start` and on, where nobody has chosen any: all in turn.   # (N,)"""
        return torch.arange(start, start + num) % self.num_classes if self.num_classes else None

    def rows(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Latents and labels of a grid that has a row for each class: (N, Z) -> (K * N, Z) and (K * N,).

        Of more than 50 classes for as many of them; without classes the latents as they are.
        """
        if not self.num_classes:
            return z, None
        shown = spread_evenly(self.num_classes, MOST_ROWS)
        return z.repeat(len(shown), 1), shown.repeat_interleave(len(z))

    def check(self, labels: Tensor, num: int) -> None:
        """See to it that these are the classes of `num` images.

        Raises:
            ValueError: if they are not; PyTorch's own error would not say which.
        """
        if not self.num_classes:
            raise ValueError(
                "labels were given, and the networks know of no classes; train with conditioning=projection"
            )
        wrong = not isinstance(labels, Tensor) or labels.shape != (num,) or labels.dtype != torch.int64
        if wrong or (num and not 0 <= labels.min() <= labels.max() < self.num_classes):
            raise ValueError(f"labels must be ({num},) int64 from 0 to {self.num_classes - 1}")


def spread_evenly(num: int, most: int) -> Tensor:
    """The numbers from 0 to num - 1, or where that is more than `most` as many of them.   # (min(num, most),)"""
    return torch.arange(num) if num <= most else torch.arange(most) * (num - 1) // max(1, most - 1)
