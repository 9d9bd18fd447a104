"""Does a conditional generator draw the class that was asked for?"""

from torch import Tensor


def conditional_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of samples in which the judge sees the class asked for, in [0, 1].

    1 / N sum_i 1[ argmax_k p(k | G(z_i, y_i)) = y_i ];   for real images: the judge's accuracy

    Args:
        logits: (N, K) float, the judge's.
        labels: (N,) int64.
    """
    return (logits.argmax(dim=1) == labels.cpu()).double().mean().item()
