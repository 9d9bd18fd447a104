"""Do generated samples look real, and do they cover what is real?"""

from gan_lightning.metrics.neighbours import Neighbours


def precision_recall(neighbours: Neighbours, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall. Kynkaanniemi et al. 2019. https://arxiv.org/abs/1904.06991

    precision = 1 / N sum_j 1[ |y_j - x_i| <= r_k(x_i) for some i ]    generated ones within reach of a real one
    recall    = 1 / R sum_i 1[ |x_i - y_j| <= r_k(y_j) for some j ]    real ones within reach of a generated one

    x_i one of R real, y_j one of N generated samples; r_k, how far a sample reaches: to its k-th nearest other of
    its own kind.

    Precision falls with quality, recall with diversity. One outlier reaches far, and raises either: see
    `density_coverage`.

    Args:
        neighbours: with at least k neighbours; as many real as generated samples, on whose number both
        depend.

    Returns:
        Precision and recall, each in [0, 1].
    """
    real_reach, fake_reach = neighbours.real[:, k - 1], neighbours.fake[:, k - 1]
    precision = (neighbours.distances <= real_reach[:, None]).any(dim=0).double().mean()  # over (N,)
    recall = (neighbours.distances <= fake_reach[None, :]).any(dim=1).double().mean()  # over (R,)
    return precision.item(), recall.item()
