import pytest
import torch
from test_gan import SHAPE, fit, same, small_gan, weights
from torch.testing import assert_close

from gan_lightning.augment import POLICIES, DiffAugment

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 5, 9), (3, 8, 6)]


def images(shape, batch=6, seed=0):
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def chance(augment, batch=6, seed=1):
    return torch.rand(batch, augment.num_draws, generator=torch.Generator().manual_seed(seed))


def at(augment, *values):
    """The same draws for each image."""
    return torch.tensor([values]).expand(6, augment.num_draws)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_strength_zero_is_the_identity(shape):
    x, augment = images(shape), DiffAugment(strength=0.0)
    assert torch.equal(augment(x, chance(augment)), x)
    largest = torch.full((6, augment.num_draws), 1 - 2**-24)
    assert torch.equal(augment(x, largest), x)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("policy", [[name] for name in POLICIES])
def test_images_keep_their_shape_and_dtype_and_change(shape, policy):
    augment = DiffAugment(policy)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = images(shape).to(dtype)
        changed = augment(x, chance(augment))
        assert changed.shape == x.shape and changed.dtype == dtype
        assert not torch.equal(changed, x)


def test_same_chance_gives_the_same_images_and_each_image_its_own():
    augment, x = DiffAugment(), images((3, 8, 8))
    draws = chance(augment)
    assert torch.equal(augment(x, draws), augment(x, draws))
    assert_close(augment(x, draws)[2:3], augment(x[2:3], draws[2:3]))
    assert not torch.equal(augment(x, draws), augment(x, draws.flip(0)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", [[name] for name in POLICIES])
def test_gradients_equal_finite_differences_twice(channels, policy):
    """Twice, as a penalty on the slope of what comes after it asks for."""
    augment = DiffAugment(policy)
    x, draws = images((channels, 4, 4), batch=2).double().requires_grad_(), chance(augment, 2).double()
    assert torch.autograd.gradcheck(lambda x: augment(x, draws), x)
    assert torch.autograd.gradgradcheck(lambda x: augment(x, draws).square(), x)


def test_brightness_saturation_and_contrast_equal_the_values_worked_by_hand():
    augment, x = DiffAugment(["color"]), images((3, 4, 4))
    assert_close(augment(x, at(augment, 0.9, 0.5, 0.5)), x + 0.4)
    grey = x.mean(dim=1, keepdim=True)
    assert_close(augment(x, at(augment, 0.5, 0.0, 0.5)), grey.expand_as(x))
    assert_close(augment(x, at(augment, 0.5, 0.75, 0.5)), grey + 1.5 * (x - grey))
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    assert_close(augment(x, at(augment, 0.5, 0.5, 0.0)), mean + 0.5 * (x - mean))
    halved = DiffAugment(["color"], strength=0.5)
    assert_close(halved(x, at(halved, 0.9, 0.5, 0.5)), x + 0.2)


def test_saturation_leaves_images_of_one_channel_alone():
    augment, x = DiffAugment(["color"]), images((1, 4, 4))
    assert_close(augment(x, at(augment, 0.5, 0.9, 0.5)), x)


def test_translation_moves_by_up_to_an_eighth_and_fills_with_zeros():
    augment, x = DiffAugment(["translation"]), images((1, 16, 24))  # up to 2 rows and 3 columns
    moved = augment(x, at(augment, 0.0, 0.99))
    assert_close(moved[:, :, :14, 3:], x[:, :, 2:, :-3])
    assert (moved[:, :, 14:] == 0).all() and (moved[:, :, :, :3] == 0).all()
    rows = {augment(x, at(augment, u, 0.5))[0, 0, 8].tolist().__repr__() for u in torch.linspace(0, 0.999, 50).tolist()}
    assert rows == {x[0, 0, 8 + shift].tolist().__repr__() for shift in range(-2, 3)}  # each of the five


def test_cutout_is_a_square_of_half_the_size_anywhere_and_over_the_edge():
    augment, x = DiffAugment(["cutout"]), images((3, 8, 12)) + 2  # nothing is 0 in it
    cut = augment(x, at(augment, 0.5, 0.5)) == 0
    assert cut[:, :, 2:6, 3:9].all() and cut.sum() == 6 * 3 * 4 * 6
    corner = augment(x, at(augment, 0.0, 0.0)) == 0
    assert corner[:, :, :2, :3].all() and corner.sum() == 6 * 3 * 2 * 3
    kept = augment(x, chance(augment))
    assert torch.equal(kept[kept != 0], x[kept != 0])


def test_real_and_generated_images_are_changed_in_every_pass(tmp_path):
    class Count:
        num_draws = 2

        def __init__(self):
            self.seen = []

        def __call__(self, images, chance):
            assert chance.shape == (len(images), 2)
            self.seen.append((images.requires_grad, chance))
            return images * 0.5

    augment = Count()
    gan, inputs = small_gan(augment=augment), []
    gan.discriminator.register_forward_pre_hook(lambda network, args: inputs.append(args[0].abs().max() <= 0.5))
    fit(gan, tmp_path, 2)
    assert [through for through, _ in augment.seen] == [False, False, True] * 2  # G's turn goes through it
    assert all(inputs[1:]) and len(inputs) == 7  # the first call tries D's shape
    draws = [chance for _, chance in augment.seen]
    assert not any(torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])


def test_strength_zero_trains_as_without(tmp_path):
    plain, still = small_gan(), small_gan(augment=DiffAugment(strength=0.0))
    for gan in (plain, still):
        fit(gan, tmp_path)
    assert same(weights(plain), weights(still))
    changed = small_gan(augment=DiffAugment())
    fit(changed, tmp_path)
    assert not same(weights(plain), weights(changed))
    assert changed.sample(2).shape == (2, *SHAPE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": ["colour"]}, r"^policy=\['colour'\] must be some of color, translation, cutout"),
        ({"policy": []}, r"^policy=\[\].*augment=none"),
        ({"strength": 1.5}, r"^strength=1\.5 must lie in \[0, 1\]"),
        ({"strength": -0.1}, r"^strength=-0\.1"),
    ],
)
def test_value_out_of_range_is_refused_by_its_key(settings, message):
    with pytest.raises(ValueError, match=message):
        DiffAugment(**settings)
