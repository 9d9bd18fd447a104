from itertools import pairwise

import pytest
import torch
from families import SMALL as SMALL_OF
from families import networks, num_parameters
from test_gan import SHAPE, fit, small_gan, weights
from torch import nn
from torch.nn.functional import interpolate
from torch.testing import assert_close

from gan_lightning.models import r3gan
from gan_lightning.penalties import R1R2
from gan_lightning.train import build_gan

SMALL = SMALL_OF["r3gan"]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(({key: 0}, rf"{key}=0 must be 1 or more$") for key in (*SMALL, "expansion")),
        (
            {"base_channels": 12, "max_channels": 12, "group_width": 16},
            r"group_width=16 must divide the 24 .*; try 8$",
        ),
    ],
)
@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_value_out_of_range_is_refused_by_its_key(settings, message, network):
    with pytest.raises(ValueError, match=f"^{message}"):
        if network == "generator":
            r3gan.Generator(8, SHAPE, **SMALL | settings)
        else:
            r3gan.Discriminator(SHAPE, **SMALL | settings)


# --- The authors' presets: github.com/brownvc/R3GAN, train.py --------------------------------------------------------


def by_hand(widths, group_width, latent_dim=64):
    """Weights of G and D of these widths, from 4x4 on: two blocks at each size, twice the width in the middle."""
    blocks = sum(2 * (2 * c * 2 * c + 2 * c * group_width * 9 + 2 * 2 * c) for c in widths)
    transitions = sum(a * b for a, b in pairwise(widths) if a != b)
    first, last = widths[0], widths[-1]
    return (
        latent_dim * first + 16 * first + blocks + transitions + 3 * last,
        3 * last + blocks + transitions + 16 * first + first,
    )


@pytest.mark.parametrize(
    ("size", "settings", "widths", "millions"),
    [
        (32, {"base_channels": 768, "max_channels": 768}, [768] * 4, 41.4),  # CIFAR10, cardinality 96
        (64, {"base_channels": 384, "max_channels": 768}, [768] * 4 + [384], 44.8),  # FFHQ-64, 96 to 48
        (256, {"base_channels": 96, "max_channels": 768}, [768] * 4 + [384, 192, 96], 46.1),  # FFHQ-256, 96 to 12
        (32, {"base_channels": 1536, "max_channels": 1536, "group_width": 32}, [1536] * 4, 165.4),  # ImageNet-32, 96
    ],
)
def test_parameters_at_the_authors_presets_are_theirs(size, settings, widths, millions):
    with torch.device("meta"):
        generator = r3gan.Generator(64, (3, size, size), **settings)
        discriminator = r3gan.Discriminator((3, size, size), **settings)
    assert (num_parameters(generator), num_parameters(discriminator)) == by_hand(
        widths, settings.get("group_width", 16)
    )
    assert round((num_parameters(generator) + num_parameters(discriminator)) / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("size", "width", "group_width", "num_classes", "millions"),
    [(32, 768, 16, 10, 21.28), (32, 1536, 32, 1000, 86.55), (64, 1536, 32, 1000, 107.21)],
    ids=["CIFAR10", "ImageNet-32", "ImageNet-64"],
)
def test_discriminator_of_classes_has_the_parameters_of_the_authors(size, width, group_width, num_classes, millions):
    """Theirs: as many numbers as features instead of one, and as many of each class; ours keeps the one besides."""
    settings = {"conditioning": "projection", "num_classes": num_classes, "group_width": group_width}
    with torch.device("meta"):
        network = r3gan.Discriminator((3, size, size), width, width, **settings)
    plain = by_hand([width] * (size // 32 + 3), group_width)[1]
    theirs = plain - width + width * width + num_classes * width
    assert num_parameters(network) == theirs + width
    assert round(theirs / 1e6, 2) == millions


@pytest.mark.parametrize("num_classes", [10, 100])
@pytest.mark.parametrize("kind", ["embedding", "projection"])
def test_generators_embedding_begins_as_a_linear_layer_of_the_one_hot_label(kind, num_classes):
    generator = r3gan.Generator(512, (3, 32, 32), **SMALL, conditioning=kind, num_classes=num_classes)
    weight = generator.layers[0].embed.weight
    assert weight.shape == (num_classes, 512)
    assert_close(weight.std().item(), num_classes**-0.5, rtol=0.05, atol=0)


@pytest.mark.parametrize("num_classes", [10, 100])
def test_discriminator_compares_the_class_with_a_mixture_of_all_features(num_classes):
    network = r3gan.Discriminator((3, 32, 32), 64, 512, conditioning="projection", num_classes=num_classes)
    mix, projection = network.layers[-2:]
    assert mix.bias is None and mix.weight.shape == (512, 512)
    assert_close(mix.weight.std().item(), 512**-0.5, rtol=0.03, atol=0)
    assert_close(projection.embed.weight.std().item(), (num_classes * 512) ** -0.5, rtol=0.05, atol=0)


@pytest.mark.parametrize("size", [28, 32, 64])
def test_default_networks_have_at_most_five_million_parameters(size):
    with torch.device("meta"):
        both = [r3gan.Generator(100, (3, size, size)), r3gan.Discriminator((3, size, size))]
    assert sum(map(num_parameters, both)) <= 5e6


# --- Layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_blocks", [1, 16])
def test_block_begins_as_the_identity_with_the_scales_of_fix_up(num_blocks):
    block, x = r3gan.Block(64, expansion=2, group_width=16, num_blocks=num_blocks), torch.randn(2, 64, 4, 4)
    assert torch.equal(block(x), x)
    first, _, grouped, _, last = block.residual
    gain = (2 / 1.04) ** 0.5 / num_blocks**0.25
    for layer, fan_in in (first, 64), (grouped, 16 * 9):
        assert_close(layer.weight.std().item(), gain / fan_in**0.5, rtol=0.03, atol=0)
        assert not layer.bias.any()
    assert grouped.groups == 8 and not last.weight.any() and last.bias is None


def test_resampling_is_bilinear_within_the_image():
    x = torch.randn(2, 3, 8, 6)
    up, down = r3gan.Upsample()(x), r3gan.Downsample()(x)
    assert up.shape == (2, 3, 16, 12) and down.shape == (2, 3, 4, 3)
    bilinear = {"scale_factor": 2.0, "mode": "bilinear"}
    assert_close(up[..., 1:-1, 1:-1], interpolate(x, **bilinear)[..., 1:-1, 1:-1])
    smaller = interpolate(x, **bilinear | {"scale_factor": 0.5, "antialias": True})
    assert_close(down[..., 1:-1, 1:-1], smaller[..., 1:-1, 1:-1])


def test_generator_begins_with_planes_times_numbers_of_z():
    planes, numbers = r3gan.Basis(3, 7), torch.randn(2, 3)
    images = planes(numbers)
    assert images.shape == (2, 3, 7, 7)
    assert_close(images[1, 2], numbers[1, 2] * planes.planes[2])


def test_discriminator_ends_with_a_plane_for_each_channel():
    layers = networks("r3gan", (1, 28, 28))[1].layers
    basis, flatten, logit, _ = layers[-4:]
    assert isinstance(flatten, nn.Flatten)
    assert basis.groups == basis.in_channels == basis.out_channels == 4 and basis.kernel_size == (7, 7)
    assert basis.bias is None and logit.bias is None and logit.in_features == 4


def test_no_layer_normalises():
    for network in networks("r3gan"):
        assert not [layer for layer in network.modules() if "Norm" in type(layer).__name__]


# --- Training --------------------------------------------------------------------------------------------------------


def test_blocks_leave_the_identity_within_two_iterations(tmp_path):
    generator, discriminator = networks("r3gan")
    gan = small_gan(generator=generator, discriminator=discriminator, penalty=R1R2(1.0))
    before = weights(gan)
    fit(gan, tmp_path, 3)
    unmoved = [name for name, _ in gan.named_parameters() if torch.equal(before[name], gan.state_dict()[name])]
    assert unmoved == []


def test_recipe_for_stacked_mnist_has_the_papers_burn_in_and_at_most_five_million_parameters(compose):
    """Huang et al. 2024, table 9: what is not constant falls along half a cosine, for 2 million images."""
    config = compose("experiment=stacked_r3gan", "data=mnist", "data.image_shape=[3,28,28]", small=False)
    with torch.device("meta"):
        gan = build_gan(config)
    discriminator, generator = gan.configure_optimizers()
    lr, (_, beta2), weight = generator.defaults["lr"], generator.defaults["betas"], gan.penalty.weight
    assert discriminator.defaults["lr"] == lr and discriminator.defaults["betas"] == (0.0, beta2)
    batch_size, total = config.data.batch_size, config.trainer.max_steps
    assert abs(total * batch_size - 10e6) < batch_size
    for images, expected in (0, (0.9, 1.0)), (1e6, (0.945, 0.55)), (2e6, (0.99, 0.1)), (10e6, (0.99, 0.1)):
        iteration = images / batch_size
        share, factor = (schedule(iteration, total) for schedule in (gan.beta2_schedule, gan.penalty.schedule))
        assert (1 - share * (1 - beta2), factor * weight) == pytest.approx(expected, abs=1e-4)
        assert gan.schedule(iteration, total) * lr == pytest.approx(2e-4)
        half_life = min(gan.ema.half_life_kimg * 1000, gan.ema.warmup * images)
        assert half_life == pytest.approx(min(0.5e6, images / 4))
    assert num_parameters(gan.generator) + num_parameters(gan.discriminator) <= 5e6
