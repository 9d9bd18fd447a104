"""Precision and recall that outliers do not fool."""

from gan_lightning.metrics.neighbours import Neighbours


def density_coverage(neighbours: Neighbours, k: int = 5) -> tuple[float, float]:
    """Density and coverage. Naeem et al. 2020. https://arxiv.org/abs/2002.09797

    density  = 1 / (k N) sum_j sum_i 1[ |y_j - x_i| <= r_k(x_i) ]      real samples that reach a generated one
    coverage = 1 / R sum_i 1[ |y_j - x_i| <= r_k(x_i) for some j ]     real samples that reach some generated one

    x_i is one of R real samples, y_j one of N generated ones; r_k(x) is the distance from a real sample to its k-th
    nearest other real one. Unlike recall, no distance between generated samples is used.

    Args:
        neighbours: at least k for each sample; as many real as generated samples, because coverage depends on it.

    Returns:
        Density, about 1 for real samples and above 1 for crowded ones, and coverage in [0, 1].
    """
    reach = neighbours.real[:, k - 1]
    inside = neighbours.distances <= reach[:, None]  # (R, N)
    density = inside.count_nonzero().item() / (k * inside.shape[1])
    coverage = inside.any(dim=1).double().mean()
    return density, coverage.item()
