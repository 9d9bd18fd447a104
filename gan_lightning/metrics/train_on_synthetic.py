"""Are generated, labelled images good enough to learn from?"""

import torch
from torch import Tensor

from gan_lightning.images import to_uint8
from gan_lightning.metrics.judge_training import train_judge


def classification_accuracy(
    images: Tensor,
    labels: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
    seed: int = 0,
    epochs: int = 4,
    device: torch.device | str = "cpu",
) -> float:
    """Accuracy on real images of a classifier trained on generated ones. Ravuri & Vinyals 2019.
    https://arxiv.org/abs/1905.10887

    The classifier is a judge of a shorter schedule. Control: train it on as many real images.

    Args:
        images: generated, (N, C, H, W) uint8 or float in [-1, 1].  labels: (N,) int64, what they were to
            show.
        test_images: real, (M, C, H, W) uint8.  test_labels: (M,) int64.
        epochs: passes over the generated images.

    Returns:
        Share of real images classified right, in [0, 1].
    """
    images = to_uint8(images) if images.is_floating_point() else images
    judge = train_judge(
        images, labels, test_images, test_labels, name="synthetic", seed=seed, epochs=epochs, device=device
    )
    return judge.test_accuracy
