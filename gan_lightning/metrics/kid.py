"""Kernel distance between two sets of features."""

import torch
from torch import Tensor


def kid(real: Tensor, fake: Tensor, subset_size: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Kernel Inception Distance: unbiased MMD^2. Binkowski et al. 2018. https://arxiv.org/abs/1801.01401

    MMD^2 = E[k(x, x')] + E[k(y, y')] - 2 E[k(x, y)],   k(x, y) = (x.y / F + 1)^3,   x and x' two samples

    The mean over subsets, as in the paper. Our subsets are disjoint: only independent subsets give an honest standard
    error, std / sqrt(number of subsets). Those of torchmetrics and torch-fidelity, 100 of them, overlap.

    Args:
        real: (R, F) float.  fake: (N, F) float.
        subset_size: samples in a subset, at most a tenth of all: fewer than ten subsets say little about the error.
        seed: of the permutations that make the subsets; without them sorted samples would do harm.

    Returns:
        The distance, which may be a little below 0 for equal distributions, and its standard error.
    """
    num_samples = min(len(real), len(fake))
    if num_samples < 4:
        raise ValueError(f"KID needs 4 samples or more, got {num_samples}.")
    subset_size = max(2, min(subset_size, num_samples // 10))
    num_subsets = num_samples // subset_size
    generator = torch.Generator().manual_seed(seed)
    real, fake = (
        features[torch.randperm(len(features), generator=generator)[: num_subsets * subset_size]].double()
        for features in (real, fake)
    )
    values = torch.stack([mmd2(x, y) for x, y in zip(real.split(subset_size), fake.split(subset_size), strict=True)])
    return values.mean().item(), (values.std() / num_subsets**0.5).item()


def mmd2(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased MMD^2 of x (n, F) and y (n, F) with the polynomial kernel."""
    n = len(x)

    def mean_of_pairs(kernel: Tensor) -> Tensor:
        return (kernel.sum() - kernel.trace()) / (n * (n - 1))

    return mean_of_pairs(kernel(x, x)) + mean_of_pairs(kernel(y, y)) - 2 * kernel(x, y).mean()


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """k(x, y) = (x.y / F + 1)^3, for each pair: (n, F), (m, F) -> (n, m)."""
    return (x @ y.T / x.shape[1] + 1) ** 3
