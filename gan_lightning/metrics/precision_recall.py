"""Do generated samples look real, and do they cover what is real?"""

from gan_lightning.metrics.neighbours import Neighbours


def precision_recall(neighbours: Neighbours, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall. Kynkaanniemi et al. 2019. https://arxiv.org/abs/1904.06991

    precision = 1 / N sum_j 1[ |y_j - x_i| <= r_k(x_i) for some i ]    generated samples within reach of a real one
    recall    = 1 / R sum_i 1[ |x_i - y_j| <= r_k(y_j) for some j ]    real samples within reach of a generated one

    x_i is one of R real samples, y_j one of N generated ones; r_k is the distance from a sample to its k-th nearest
    other sample of the same kind.

    Precision measures quality, recall diversity. A single outlier reaches far and can raise either: see
    `density_coverage`.

    Args:
        neighbours: at least k for each sample; as many real as generated samples, because both depend on it.

    Returns:
        Precision and recall, each in [0, 1].
    """
    real_reach, fake_reach = neighbours.real[:, k - 1], neighbours.fake[:, k - 1]
    precision = (neighbours.distances <= real_reach[:, None]).any(dim=0).double().mean()  # over (N,)
    recall = (neighbours.distances <= fake_reach[None, :]).any(dim=1).double().mean()  # over (R,)
    return precision.item(), recall.item()
