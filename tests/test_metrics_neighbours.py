"""Precision, recall, density, coverage, and what they stand on."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from gan_lightning.metrics.density_coverage import density_coverage
from gan_lightning.metrics.neighbours import nearest, neighbours
from gan_lightning.metrics.precision_recall import precision_recall


def features(num_samples: int, seed: int, width: int = 8) -> torch.Tensor:
    return torch.randn(num_samples, width, generator=torch.Generator().manual_seed(seed))


def naive(real: np.ndarray, fake: np.ndarray, k: int) -> dict[str, float]:
    """The four metrics as in the papers, in float64, a sample at a time."""

    def distance(a, b):
        return np.linalg.norm(a - b)

    def reach(points):
        return [sorted(distance(p, q) for j, q in enumerate(points) if j != i)[k - 1] for i, p in enumerate(points)]

    real_reach, fake_reach = reach(real), reach(fake)
    inside_real = np.array([[distance(r, f) <= real_reach[i] for f in fake] for i, r in enumerate(real)])
    inside_fake = np.array([[distance(r, f) <= fake_reach[j] for j, f in enumerate(fake)] for r in real])
    return {
        "precision": inside_real.any(0).mean(),
        "recall": inside_fake.any(1).mean(),
        "density": inside_real.sum() / (k * len(fake)),
        "coverage": inside_real.any(1).mean(),
    }


def ours(real: torch.Tensor, fake: torch.Tensor, k: int | None = None) -> dict[str, float]:
    among = neighbours(real, fake)
    precision, recall = precision_recall(among, k or 3)
    density, coverage = density_coverage(among, k or 5)
    return {"precision": precision, "recall": recall, "density": density, "coverage": coverage}


@pytest.mark.parametrize("k", [1, 3, 5])
def test_agree_with_a_loop_over_samples(k):
    real, fake = features(90, 0, width=4), features(70, 1, width=4) * 0.8 + 0.4
    expected = naive(real.double().numpy(), fake.double().numpy(), k)
    assert ours(real, fake, k) == pytest.approx(expected, rel=1e-6)
    assert min(expected.values()) > 0.05  # the comparison says something


def test_precision_and_recall_agree_with_torch_fidelity():
    metric_prc = pytest.importorskip("torch_fidelity.metric_prc")
    real, fake = features(1500, 0), features(1500, 1) * 0.9 + 0.2
    expected = metric_prc.calculate_precision_recall_full(fake, real)
    assert precision_recall(neighbours(real, fake)) == pytest.approx(expected, rel=1e-3)


def test_real_against_real_is_near_its_ceiling():
    scores = ours(features(2000, 0), features(2000, 1))
    assert scores["density"] == pytest.approx(1, abs=0.1)
    # For equal distributions coverage is expected at 1 - (1/2)^k: Naeem et al. 2020, section 3.
    assert scores["coverage"] == pytest.approx(1 - 0.5**5, abs=0.03)
    assert min(scores["precision"], scores["recall"]) > 0.7


def test_precision_and_density_fall_with_noise():
    real, fake, noise = features(1000, 0), features(1000, 1), features(1000, 2)
    rows = [ours(real, fake + level * noise) for level in (0, 0.7, 1.5, 3)]
    for name in ("precision", "density"):
        values = [row[name] for row in rows]
        assert all(more > less for more, less in pairwise(values)) and values[-1] < 0.5 * values[0]


def test_recall_and_coverage_fall_as_classes_are_dropped():
    def classes(number: int, seed: int) -> torch.Tensor:
        points = features(1000, seed)
        points[:, 0] += 10 * (torch.arange(1000) % number)
        return points

    rows = [ours(classes(5, 0), classes(number, 1)) for number in (5, 4, 2, 1)]
    for name in ("recall", "coverage"):
        values = [row[name] for row in rows]
        assert all(more > less for more, less in pairwise(values)) and values[-1] < 0.35 * values[0]
    assert min(row["precision"] for row in rows) > 0.6  # what is there is good


def test_constant_generator_has_neither_recall_nor_coverage():
    scores = ours(features(1000, 0), features(1, 1).expand(1000, -1))
    assert scores["recall"] < 0.01 and scores["coverage"] < 0.05


def test_an_outlier_raises_recall_but_not_coverage():
    real = features(1000, 0)
    fake = 0.01 * features(1000, 1)
    with_outliers = fake.clone()
    with_outliers[:4] = torch.eye(8)[:4] * 8
    before, after = ours(real, fake), ours(real, with_outliers)
    assert after["recall"] > before["recall"] + 0.5
    assert after["coverage"] == pytest.approx(before["coverage"], abs=0.01)


def test_nearest_agrees_with_sorting_whatever_the_chunk():
    queries, points = features(37, 0), features(53, 1)
    expected = torch.linalg.vector_norm(queries[:, None] - points[None], dim=2).sort(dim=1)
    for rows in (1, 10, 100):
        distances, indices = nearest(queries, points, 4, rows)
        torch.testing.assert_close(distances, expected.values[:, :4], rtol=1e-4, atol=1e-4)
        assert torch.equal(indices, expected.indices[:, :4])


def test_far_from_the_origin_distances_keep_their_digits():
    real, fake = features(200, 0), features(200, 1)
    near, far = neighbours(real, fake), neighbours(real + 100, fake + 100)
    torch.testing.assert_close(near.distances, far.distances, rtol=1e-3, atol=1e-3)


def test_more_than_the_limit_or_fewer_than_k_are_refused():
    with pytest.raises(ValueError, match="At most 10000 samples each, got 10001 real"):
        neighbours(torch.zeros(10_001, 2), torch.zeros(10, 2))
    with pytest.raises(ValueError, match="need more than 5 samples, got 5"):
        neighbours(torch.zeros(10, 2), torch.zeros(5, 2))
