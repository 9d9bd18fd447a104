"""Precision and recall that outliers do not fool."""

from gan_lightning.metrics.neighbours import Neighbours


def density_coverage(neighbours: Neighbours, k: int = 5) -> tuple[float, float]:
    """Density and coverage. Naeem et al. 2020. https://arxiv.org/abs/2002.09797

    density  = 1 / (k N) sum_j sum_i 1[ |y_j - x_i| <= r_k(x_i) ]      how many real ones reach a generated one
    coverage = 1 / R sum_i 1[ |y_j - x_i| <= r_k(x_i) for some j ]     real ones that reach a generated one

    x_i one of R real, y_j one of N generated samples; r_k(x), how far a real one reaches: to its k-th nearest other
    real one. Nothing depends on how far generated ones reach.

    Args:
        neighbours: with at least k neighbours; as many real as generated samples, on whose number coverage
        depends.

    Returns:
        Density, about 1 for real samples and above 1 where samples crowd, and coverage in [0, 1].
    """
    reach = neighbours.real[:, k - 1]
    inside = neighbours.distances <= reach[:, None]  # (R, N)
    density = inside.count_nonzero().item() / (k * inside.shape[1])
    coverage = inside.any(dim=1).double().mean()
    return density, coverage.item()
