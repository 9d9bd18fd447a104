"""How training uses the classes of the images. How the networks see them: `models/labels.py`.

Letters: B images, N samples, Z latent, K classes.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

Output = Tensor | tuple[Tensor, Tensor]

MOST_ROWS = 50  # in a picture with a row for each class


class Conditioning:
    """Both networks get the class of each image; generated images get the classes of the real ones.

    A discriminator that also classifies (AC-GAN) adds a class loss, which both networks minimise.
    Odena et al. 2017, section 3. https://arxiv.org/abs/1610.09585

    `L_C = -E[log P(C = c | x)] - E[log P(C = c | G(z, c))]`, added to L_D. L_G gets the second term only: the
    first does not depend on G.

    Args:
        num_classes: K; 0: there are no classes, and the networks get None for labels.
        weight: factor on L_C; 1 in the paper.

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
        """D's output -> its (B,) logits, and its class loss: 0 without a classifier."""
        if isinstance(output, Tensor):
            return output, 0.0
        logits, class_logits = output
        assert labels is not None
        return logits, self.weight * cross_entropy(class_logits, labels)

    def in_turn(self, num: int, start: int = 0) -> Tensor | None:
        """Round-robin labels from `start`; None without classes.   # (N,)"""
        return torch.arange(start, start + num) % self.num_classes if self.num_classes else None

    def rows(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Latents and labels of a grid with a row for each class: (N, Z) -> (K * N, Z) and (K * N,).

        With more than 50 classes: rows for 50 of them. Without classes: the latents as they are.
        """
        if not self.num_classes:
            return z, None
        shown = spread_evenly(self.num_classes, MOST_ROWS)
        return z.repeat(len(shown), 1), shown.repeat_interleave(len(z))

    def check(self, labels: Tensor, num: int) -> None:
        """Raises ValueError if these are not the classes of `num` images. PyTorch's own error would not say so."""
        if not self.num_classes:
            raise ValueError(
                "labels were given, and the networks know of no classes; train with conditioning=projection"
            )
        wrong = not isinstance(labels, Tensor) or labels.shape != (num,) or labels.dtype != torch.int64
        if wrong or (num and not 0 <= labels.min() <= labels.max() < self.num_classes):
            raise ValueError(f"labels must be ({num},) int64 from 0 to {self.num_classes - 1}")


def spread_evenly(num: int, most: int) -> Tensor:
    """The numbers from 0 to num - 1, or `most` of them, spread evenly.   # (min(num, most),)"""
    return torch.arange(num) if num <= most else torch.arange(most) * (num - 1) // max(1, most - 1)
