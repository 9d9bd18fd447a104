from itertools import pairwise

import numpy as np
import pytest
import torch

from gan_lightning.metrics.kid import kid, mmd2


def features(num_samples: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(num_samples, 16, generator=torch.Generator().manual_seed(seed)) + shift


def naive_mmd2(x: np.ndarray, y: np.ndarray) -> float:
    def k(a, b):
        return (np.dot(a, b) / len(a) + 1) ** 3

    n = len(x)
    xx = [k(x[i], x[j]) for i in range(n) for j in range(n) if i != j]
    yy = [k(y[i], y[j]) for i in range(n) for j in range(n) if i != j]
    xy = [k(x[i], y[j]) for i in range(n) for j in range(n)]
    return float(np.mean(xx) + np.mean(yy) - 2 * np.mean(xy))


def test_mmd2_agrees_with_a_loop_over_pairs():
    x, y = features(40, 0).double(), features(40, 1, shift=0.5).double()
    assert mmd2(x, y).item() == pytest.approx(naive_mmd2(x.numpy(), y.numpy()), rel=1e-10)


def test_mmd2_agrees_with_torch_fidelity():
    metric_kid = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = features(200, 0).double(), features(200, 1, shift=0.5).double()
    kernel = [(a @ b.T / 16 + 1) ** 3 for a, b in ((x, x), (x, y), (y, y))]
    assert mmd2(x, y).item() == pytest.approx(float(metric_kid.mmd2(*(k.numpy() for k in kernel))), rel=1e-9)


def test_agrees_with_torchmetrics_within_the_standard_error():
    image = pytest.importorskip("torchmetrics.image.kid")
    real, fake = features(4000, 0), features(4000, 1, shift=0.3)
    theirs = image.poly_mmd(real.double(), fake.double())
    value, stderr = kid(real, fake, subset_size=500)
    assert value == pytest.approx(theirs.item(), abs=4 * stderr)


def test_is_unbiased_around_zero_for_equal_distributions():
    values, errors = zip(
        *(kid(features(600, 2 * i), features(600, 2 * i + 1), subset_size=100) for i in range(40)),
        strict=True,
    )
    assert abs(np.mean(values)) < 3 * np.std(values) / 40**0.5
    # The standard error says how much values of other samples differ.
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.3)


def test_grows_with_noise():
    real, fake = features(2000, 0), features(2000, 1)
    values = [kid(real, fake + noise * features(2000, 2))[0] for noise in (0, 0.4, 0.8, 1.2)]
    assert all(less < more for less, more in pairwise(values)) and values[-1] > 10 * abs(values[0]), values


@pytest.mark.parametrize("seed", [0, 5])
def test_is_the_mean_over_disjoint_subsets_and_its_standard_error(seed):
    real, fake = features(130, 0), features(112, 1, shift=0.4)
    value, stderr = kid(real, fake, subset_size=9, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    subsets = [
        all_[torch.randperm(len(all_), generator=draw)[: 12 * 9]].double().numpy().reshape(12, 9, 16)
        for all_ in (real, fake)
    ]
    values = [naive_mmd2(x, y) for x, y in zip(*subsets, strict=True)]
    assert value == pytest.approx(np.mean(values), rel=1e-6)
    assert stderr == pytest.approx(np.std(values, ddof=1) / 12**0.5, rel=1e-6)


def test_order_of_samples_matters_no_more_than_chance():
    real, fake = features(2000, 0), features(2000, 1, shift=0.5)
    value, stderr = kid(real, fake, subset_size=200)
    in_order, _ = kid(real[real[:, 0].argsort()], fake[fake[:, 0].argsort()], subset_size=200)
    assert in_order == pytest.approx(value, abs=5 * stderr)


def test_same_samples_give_the_same_numbers_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    assert kid(features(500, 0), features(400, 1)) == kid(features(500, 0), features(400, 1))
    assert torch.equal(before, torch.get_rng_state())


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="4 samples or more, got 3"):
        kid(features(3, 0), features(100, 1))
