"""Can a classifier learn from generated, labelled images?"""

from typing import NamedTuple

import torch
from torch import Tensor

from gan_lightning.images import to_uint8
from gan_lightning.metrics.classifier import train_classifier
from gan_lightning.metrics.scores import choose

EPOCHS = 4


class ClassificationAccuracy(NamedTuple):
    generated: float  # of a classifier trained on generated images
    control: float  # of a classifier trained on as many real images


def classification_accuracy(
    images: Tensor,
    labels: Tensor,
    real_images: Tensor,
    real_labels: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
    seed: int = 0,
    epochs: int = EPOCHS,
    device: torch.device | str = "cpu",
) -> ClassificationAccuracy:
    """Accuracy on real images of a classifier trained on generated ones. Ravuri & Vinyals 2019.
    https://arxiv.org/abs/1905.10887

    CAS = 1 / M sum_i 1[ argmax_k p(k | x_i) = y_i ],   x_i, y_i real test images,   p trained on generated images

    The classifier is a judge, trained for fewer epochs.

    Args:
        images: generated, (N, C, H, W) uint8 or float in [-1, 1].  labels: (N,) int64, the classes asked for.
        real_images: training split, (T, C, H, W) uint8, of which N are taken.  real_labels: (T,) int64.
        test_images: real, (M, C, H, W) uint8.  test_labels: (M,) int64.
        epochs: passes over the images trained on.

    Returns:
        Two shares of test images classified right, in [0, 1].
    """
    images = to_uint8(images) if images.is_floating_point() else images
    some = choose(len(real_images), min(len(images), len(real_images)))

    def accuracy(images: Tensor, labels: Tensor) -> float:
        judge = train_classifier(
            images, labels, test_images, test_labels, name="synthetic", seed=seed, epochs=epochs, device=device
        )
        return judge.test_accuracy

    return ClassificationAccuracy(accuracy(images, labels), accuracy(real_images[some], real_labels[some]))
