"""Which classes are generated, how often, and how clearly?"""

from typing import NamedTuple

import torch
from torch import Tensor

SURE = 0.9  # the judge is sure of a sample whose class has at least this probability


class ClassHistogram(NamedTuple):
    counts: list[int]  # samples of each class, K long
    kl: float  # KL(generated || data), in nats: 0 if as in the data, log K if only one of K equal classes is drawn
    missing: int  # classes of the data without one sample
    excess: float  # the most over-drawn class: how many times as often as in the data it is drawn
    sure_share: float  # share of samples whose most probable class has probability 0.9 or more


def class_histogram(logits: Tensor, data_counts: Tensor) -> ClassHistogram:
    """Classes of samples by the judge, against those of the data; used since Unrolled GAN. Metz et al. 2017.
    https://arxiv.org/abs/1611.02163

    KL(q || p) = sum_k q_k log(q_k / p_k),   excess = max_k q_k / p_k,   q generated, p data

    Args:
        logits: (N, K) float.
        data_counts: (K,) images of each class in the data, by the same judge.
    """
    probabilities, classes = logits.double().softmax(dim=1).max(dim=1)
    counts = classes.bincount(minlength=logits.shape[1])
    q, p = counts.double() / counts.sum(), data_counts.double() / data_counts.sum()
    kl = (torch.xlogy(q, q) - torch.xlogy(q, p)).sum()  # 0 log 0 = 0
    return ClassHistogram(
        counts.tolist(),
        kl.item(),
        int(((counts == 0) & (data_counts > 0)).sum()),
        (q / p)[p > 0].max().item(),  # a judge may know classes that the data lack
        (probabilities >= SURE).double().mean().item(),
    )
