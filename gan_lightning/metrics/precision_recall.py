"""Do generated samples look real, and do they cover what is real?"""

from gan_lightning.metrics.neighbours import Neighbours


def precision_recall(neighbours: Neighbours, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall. Kynkaanniemi et al. 2019. https://arxiv.org/abs/1904.06991

    precision = share of generated samples within reach of a real one; recall = share of real samples within
    reach of a generated one. A sample reaches as far as its k-th nearest other of its own kind.

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
