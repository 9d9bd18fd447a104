import numpy as np
import pytest
import torch

from gan_lightning.images import normalize
from gan_lightning.metrics.memorisation import Nearness, memorisation, nearness, pixel_space


def points(num: int, seed: int, width: int = 6) -> torch.Tensor:
    return torch.randn(num, width, generator=torch.Generator().manual_seed(seed))


TRAINING, HELD_OUT, NEW = points(3000, 0), points(1000, 1), points(1000, 2)


def test_nearness_agrees_with_its_definition():
    found = nearness(NEW[:50], TRAINING[:200], k=5)
    distances = np.linalg.norm(NEW[:50, None].double().numpy() - TRAINING[None, :200].double().numpy(), axis=2)
    order = np.sort(distances, axis=1)
    np.testing.assert_allclose(found.distance, order[:, 0], rtol=1e-4)
    np.testing.assert_allclose(found.ratio, order[:, 0] / order[:, 1:6].mean(1), rtol=1e-4)
    np.testing.assert_array_equal(found.image, distances.argmin(axis=1))


def test_new_samples_score_as_held_out_ones():
    memorised, nearest_ratio = memorisation(nearness(NEW, TRAINING), nearness(HELD_OUT, TRAINING))
    assert memorised == pytest.approx(0.01, abs=0.012)
    assert nearest_ratio == pytest.approx(1, abs=0.1)


def test_held_out_samples_themselves_score_one_percent():
    held_out = nearness(HELD_OUT, TRAINING)
    memorised, nearest_ratio = memorisation(held_out, held_out)
    assert memorised == pytest.approx(0.01) and nearest_ratio == 1


def test_memorisation_rises_as_training_samples_are_mixed_in():
    held_out = nearness(HELD_OUT, TRAINING)
    rows = []
    for share in (0, 0.1, 0.5, 1):
        mixed = NEW.clone()
        mixed[: int(share * 1000)] = TRAINING[: int(share * 1000)]
        rows.append(memorisation(nearness(mixed, TRAINING), held_out))
    for (memorised, _), share in zip(rows, (0, 0.1, 0.5, 1), strict=True):
        assert memorised == pytest.approx(share + 0.01 * (1 - share), abs=0.012)
    ratios = [ratio for _, ratio in rows]
    assert ratios == sorted(ratios, reverse=True) and ratios[-1] < 0.01


def test_copies_with_a_little_noise_are_caught():
    copies = TRAINING[:1000] + 0.02 * points(1000, 3)
    assert memorisation(nearness(copies, TRAINING), nearness(HELD_OUT, TRAINING))[0] > 0.9


def test_values_agree_with_numpy_on_skewed_distances():
    draw = np.random.default_rng(0)
    ratio, distance = (
        draw.beta(8, 1.5, (2, 4001)).astype("float32"),
        draw.lognormal(0, 1.5, (2, 4001)).astype("float32"),
    )
    ratio[0, :700] *= 0.3  # some copies
    distance[1] *= 3
    fake, held_out = (
        Nearness(torch.from_numpy(d), torch.from_numpy(r), torch.zeros(4001, dtype=torch.int64))
        for d, r in zip(distance, ratio, strict=True)
    )
    memorised, nearest_ratio = memorisation(fake, held_out)
    assert memorised == pytest.approx((ratio[0] <= np.quantile(ratio[1], 0.01)).mean(), rel=1e-3)
    assert nearest_ratio == pytest.approx(np.median(distance[0]) / np.median(distance[1]), rel=1e-3)
    assert 0.1 < memorised < 0.5 and abs(nearest_ratio - distance[0].mean() / distance[1].mean()) > 0.01


def test_samples_of_a_dense_class_are_no_copies():
    # Half of the data is a hundred times denser: everything there is near to some training image.
    scale = torch.where(torch.arange(3000) % 2 == 0, 0.01, 1.0)[:, None]
    training, held_out = TRAINING * scale, HELD_OUT * scale[:1000]
    memorised, nearest_ratio = memorisation(nearness(NEW * 0.01, training), nearness(held_out, training))
    assert memorised < 0.03
    assert nearest_ratio < 0.5  # the plain distance alone would call them copies


def test_training_sets_with_duplicates_are_no_trouble():
    found = nearness(TRAINING[:10], TRAINING[:10].repeat_interleave(8, dim=0))
    assert found.ratio.isfinite().all()
    assert memorisation(Nearness(*found), nearness(HELD_OUT, TRAINING))[0] > 0.5


def test_pixel_space_keeps_distances_along_its_axes_and_is_always_the_same():
    draw = torch.Generator().manual_seed(0)
    mixing = torch.randn(5, 144, generator=draw)
    images = (torch.randn(400, 5, generator=draw) @ mixing * 12 + 128).round().clamp(0, 255)
    images = images.to(torch.uint8).view(-1, 1, 12, 12)
    space = pixel_space(images, num_axes=8)
    assert space.axes.shape == (144, 8)
    before = torch.cdist(normalize(images).flatten(1), normalize(images).flatten(1))
    after = torch.cdist(space.locate(images), space.locate(images, rows=33))
    torch.testing.assert_close(after, before, rtol=0.05, atol=0.1)  # five axes hold all but the rounding
    torch.manual_seed(1)
    assert torch.equal(space.axes, pixel_space(images, num_axes=8).axes)


def test_pixel_space_captures_as_much_variance_as_the_first_singular_vectors():
    draw = torch.Generator().manual_seed(0)
    fading = 60 * 0.85 ** torch.arange(144.0)  # the first axes hold most, and none of the next ones nothing
    axes, _ = torch.linalg.qr(torch.randn(144, 144, generator=draw))
    images = torch.randn(500, 144, generator=draw) * fading @ axes
    images = (images + 128).round().clamp(0, 255).to(torch.uint8).view(-1, 1, 12, 12)
    space = pixel_space(images, num_axes=10)
    flat = normalize(images).flatten(1).double().numpy()
    np.testing.assert_allclose(space.mean, flat.mean(0), atol=1e-5)
    np.testing.assert_allclose(space.axes.T @ space.axes, np.eye(10), atol=1e-5)
    singular = np.linalg.svd(flat - flat.mean(0), compute_uv=False)
    captured = space.locate(images).double().square().sum().item()
    np.testing.assert_allclose(captured, (singular[:10] ** 2).sum(), rtol=1e-3)
    assert (singular[:10] ** 2).sum() < 0.97 * (singular**2).sum()  # some is left out
