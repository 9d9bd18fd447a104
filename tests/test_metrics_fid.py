from itertools import pairwise

import numpy as np
import pytest
import torch

from gan_lightning.metrics.fid import frechet_distance, moments

scipy_linalg = pytest.importorskip("scipy.linalg")


def gaussian(num_samples: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(num_samples, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_equal_moments_have_distance_zero():
    one = moments(gaussian(1000, 16, seed=0))
    assert frechet_distance(*one, *one) == pytest.approx(0, abs=1e-12)


def test_shifted_gaussians_are_as_far_as_the_shift_squared():
    features = gaussian(1000, 16, seed=0)
    shift = torch.arange(16.0, dtype=torch.float64) / 10
    distance = frechet_distance(*moments(features), *moments(features + shift))
    assert distance == pytest.approx(shift.square().sum().item(), rel=1e-9)


def test_scaled_gaussians_are_as_far_as_their_deviations():
    # Commuting covariances: sum of (s_a - s_b)^2 over the axes.
    scales = torch.linspace(0.1, 3, 16, dtype=torch.float64)
    identity = torch.eye(16, dtype=torch.float64)
    mean = torch.zeros(16, dtype=torch.float64)
    distance = frechet_distance(mean, identity, mean, (scales**2).diag())
    assert distance == pytest.approx((scales - 1).square().sum().item(), rel=1e-12)


def test_agrees_with_scipys_matrix_root():
    mixing = gaussian(24, 24, seed=1)
    real, fake = gaussian(2000, 24, seed=2), gaussian(500, 24, seed=3) @ mixing + 0.5
    (mean_a, cov_a), (mean_b, cov_b) = moments(real), moments(fake)
    root = scipy_linalg.sqrtm((cov_a @ cov_b).numpy())
    expected = ((mean_a - mean_b) ** 2).sum() + (cov_a + cov_b).trace() - 2 * np.trace(root.real)
    assert frechet_distance(mean_a, cov_a, mean_b, cov_b) == pytest.approx(float(expected), rel=1e-8)


def test_agrees_with_torch_fidelity():
    metric_fid = pytest.importorskip("torch_fidelity.metric_fid")
    (mean_a, cov_a), (mean_b, cov_b) = (
        moments(gaussian(900, 24, seed=4)),
        moments(gaussian(500, 24, seed=5) * 1.5),
    )
    theirs = metric_fid.fid_statistics_to_metric(
        {"mu": mean_a.numpy(), "sigma": cov_a.numpy()},
        {"mu": mean_b.numpy(), "sigma": cov_b.numpy()},
        verbose=False,
    )["frechet_inception_distance"]
    assert frechet_distance(mean_a, cov_a, mean_b, cov_b) == pytest.approx(theirs, rel=1e-6)


def test_features_that_never_change_are_no_trouble():
    features = torch.cat([gaussian(400, 8, seed=6), torch.zeros(400, 4, dtype=torch.float64)], dim=1)
    real = moments(features)
    constant = moments(torch.zeros(400, 12))
    assert frechet_distance(*real, *constant) == pytest.approx((real[0] ** 2).sum().item() + real[1].trace().item())


def test_moments_are_float64_whatever_comes_in():
    features = gaussian(100_000, 2, seed=7) + 1000  # float32 squares would lose the variance
    mean, covariance = moments(features.float())
    assert mean.dtype == covariance.dtype == torch.float64
    torch.testing.assert_close(covariance, torch.cov(features.T), rtol=1e-4, atol=1e-4)


def test_too_few_samples_are_refused_with_the_number_needed():
    with pytest.raises(ValueError, match=r"511 samples are too few .* 128 features; give at least 512"):
        moments(torch.zeros(511, 128))


def test_distance_grows_with_noise():
    features = gaussian(2000, 16, seed=8)
    real = moments(gaussian(2000, 16, seed=9))
    distances = [
        frechet_distance(*real, *moments(features + noise * gaussian(2000, 16, seed=10))) for noise in (0, 0.3, 0.6, 1)
    ]
    assert all(less < more for less, more in pairwise(distances)) and distances[-1] > 10 * distances[0], distances
    assert distances[0] < 0.1 < distances[1]
