"""Distances between real and generated samples, computed once for all metrics that need neighbours."""

from typing import NamedTuple

import torch
from torch import Tensor

MAX_SAMPLES = 10_000  # real, and as many generated: `distances` then takes 400 MB


class Neighbours(NamedTuple):
    """How far samples are from each other in feature space. R real samples, N generated."""

    real: Tensor  # (R, k) float32, from each real sample to its k nearest other real ones, ascending
    fake: Tensor  # (N, k) float32, the same among generated samples
    distances: Tensor  # (R, N) float32, from each real sample to each generated one


def neighbours(real: Tensor, fake: Tensor, k: int = 5) -> Neighbours:
    """Distances among and between real (R, F) and generated (N, F) features, at most 10,000 of each.

    Not torch-fidelity's: its precision and recall do not share their distances with density and coverage, which it
    lacks.
    """
    if max(len(real), len(fake)) > MAX_SAMPLES:
        raise ValueError(f"At most {MAX_SAMPLES} samples each, got {len(real)} real and {len(fake)} generated.")
    if min(len(real), len(fake)) <= k:
        raise ValueError(f"{k} nearest others need more than {k} samples, got {min(len(real), len(fake))}.")
    centre = real.mean(dim=0)  # small coordinates lose less in float32
    real, fake = real - centre, fake - centre
    # The nearest sample of all is the sample itself.
    among_real, among_fake = (nearest(points, points, k + 1)[0][:, 1:] for points in (real, fake))
    return Neighbours(among_real, among_fake, torch.cdist(real, fake))


def nearest(queries: Tensor, points: Tensor, k: int, rows: int = 500) -> tuple[Tensor, Tensor]:
    """The k points nearest to each query, by Euclidean distance.

    Args:
        queries: (N, F).  points: (P, F), of the same dtype.
        rows: queries at once, which bounds memory to rows x P.

    Returns:
        Distances (N, k), ascending, and indices into points (N, k) int64.
    """
    found = [torch.cdist(part, points).topk(k, dim=1, largest=False) for part in queries.split(rows)]
    return torch.cat([distances for distances, _ in found]), torch.cat([indices for _, indices in found])
