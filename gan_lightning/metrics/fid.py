"""Frechet distance between two sets of features."""

import torch
from torch import Tensor

# With N = 4 F samples a perfect generator still scores about tr(S) / 16, all of it sampling error.
SAMPLES_PER_FEATURE = 4


def moments(features: Tensor, trial: bool = False) -> tuple[Tensor, Tensor]:
    """Mean (F,) and unbiased covariance (F, F) of features (N, F), in float64.

    Args:
        trial: True: only to see that scoring runs; too few samples are allowed then.

    Raises:
        ValueError: if there are fewer than 4 F samples, except in a trial.
    """
    num_samples, width = features.shape
    if num_samples < SAMPLES_PER_FEATURE * width and not trial:
        raise ValueError(
            f"{num_samples} samples are too few for the covariance of {width} features; "
            f"give at least {SAMPLES_PER_FEATURE * width}."
        )
    return features.double().mean(dim=0), torch.cov(features.double().T)


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """Frechet distance of two Gaussians; of features, the FID. Heusel et al. 2017. https://arxiv.org/abs/1706.08500

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))

    Not torchmetrics', which wants images and an nn.Module, and takes complex eigenvalues of S_a S_b. The symmetric
    R S_b R with R = S_a^(1/2) has the same eigenvalues, real and at least 0.

    Args:
        mean_a, mean_b: (F,) float64.  cov_a, cov_b: (F, F) float64, from `moments`.

    Returns:
        At least 0; 0 for equal moments.
    """
    root = symmetric_root(cov_a)
    trace_of_root = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * trace_of_root
    return max(0.0, distance.item())


def symmetric_root(matrix: Tensor) -> Tensor:
    """The root of a symmetric positive semidefinite matrix (F, F); rounding below 0 counts as 0."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
