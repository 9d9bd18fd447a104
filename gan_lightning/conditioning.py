"""What the labels of the images are used for. How the networks look at them: `models/conditioning.py`.

Letters: B images, K classes.
"""

from torch import Tensor
from torch.nn.functional import cross_entropy

Output = Tensor | tuple[Tensor, Tensor]


class Conditioning:
    """Both networks are told the class of each image, and D judges an image as one of its class.

    Args:
        num_classes: K; 0: there are no classes, networks get None for labels.

    Raises:
        ValueError: if num_classes is negative.
    """

    def __init__(self, num_classes: int = 0) -> None:
        if num_classes < 0:
            raise ValueError(f"conditioning.num_classes={num_classes} must be 0 or more")
        self.num_classes = num_classes

    def split(self, output: Output, labels: Tensor | None) -> tuple[Tensor, Tensor | float]:
        """What D has returned -> its (B,) logits, and what is added to the loss of whoever is up."""
        assert isinstance(output, Tensor)
        return output, 0.0


class Auxiliary(Conditioning):
    """D is not told the class but has to say it; both networks gain where it can. Odena et al. 2017 (AC-GAN), section 3. https://arxiv.org/abs/1610.09585

    `L_C = -E[log P(C = c | x)] - E[log P(C = c | G(z, c))]`, in L_D; of L_G the second term alone depends on G.

    Args:
        num_classes: K.
        weight: of this loss beside that of real or fake; 1 in the paper.
    """

    def __init__(self, num_classes: int, weight: float = 1.0) -> None:
        super().__init__(num_classes)
        if num_classes < 2 or weight <= 0:
            raise ValueError(
                f"conditioning.num_classes={num_classes}, conditioning.weight={weight}: an auxiliary classifier needs "
                "two classes or more and a positive weight; without labels: conditioning=none"
            )
        self.weight = weight

    def split(self, output: Output, labels: Tensor | None) -> tuple[Tensor, Tensor | float]:
        assert isinstance(output, tuple) and labels is not None
        logits, class_logits = output
        return logits, self.weight * cross_entropy(class_logits, labels)
