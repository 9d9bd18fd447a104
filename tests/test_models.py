"""What every family of networks does, and the parts of the MLP and of DCGAN."""

import pytest
import torch
from families import FAMILIES, SMALL, networks, num_parameters, stir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from test_gan import LATENT_DIM, SHAPE, fit, small_gan, weights
from torch import nn
from torch.testing import assert_close

from gan_lightning.callbacks.network_table import network_rows
from gan_lightning.files import conf_dir, options
from gan_lightning.models import dcgan, mlp
from gan_lightning.models.init import initialize
from gan_lightning.penalties import R1
from gan_lightning.runs.checkpoint import load_gan

SHAPES = [(channels, size, size) for size in (28, 32, 64) for channels in (1, 3)]
SIZES = {"dcgan": "divisible by 4", "resnet": "28, 32 or 64", "r3gan": "28, 32 or 64"}  # of families with convolutions


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


# --- Every family --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_images_lie_between_minus_one_and_one_and_have_a_logit_each(family, shape):
    generator, discriminator = networks(family, shape)
    images = generator(100 * torch.randn(5, LATENT_DIM))
    assert images.shape == (5, *shape) and images.abs().max() <= 1
    assert discriminator(images).shape == (5,)
    assert discriminator.eval()(images[:1]).shape == (1,)


@pytest.mark.parametrize("family", FAMILIES)
def test_discriminators_output_is_a_logit_not_a_probability(family):
    discriminator = stir(networks(family)[1]).eval()
    assert discriminator(100 * torch.randn(8, *SHAPE)).abs().max() > 1


@pytest.mark.parametrize("shape", [(1, 30, 30), (1, 27, 27), (1, 28, 32), (3, 7, 7), (1, 2, 2)], ids=str)
@pytest.mark.parametrize("family", SIZES)
def test_size_that_cannot_be_halved_is_refused_by_its_key(family, shape):
    module = FAMILIES[family]
    for build in lambda: module.Generator(8, shape), lambda: module.Discriminator(shape):
        with pytest.raises(
            ValueError, match=rf"^image_shape=\[.*model={family} needs square.*{SIZES[family]}.*model=mlp$"
        ):
            build()


@pytest.mark.parametrize("family", SIZES)
def test_number_of_channels_below_one_is_refused_by_its_key(family):
    told = SMALL[family] | {"base_channels": 0}
    with pytest.raises(ValueError, match=r"^base_channels=0 must be 1 or more"):
        FAMILIES[family].Generator(8, SHAPE, **told)
    with pytest.raises(ValueError, match=r"^base_channels=0 must be 1 or more"):
        FAMILIES[family].Discriminator(SHAPE, **told)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_z_gives_one_image_alone_or_in_a_batch(family):
    generator = stir(networks(family)[0])
    generator(torch.randn(16, LATENT_DIM))  # moves BatchNorm's statistics off their start
    generator.eval()
    z = torch.randn(8, LATENT_DIM)
    assert_close(generator(z[3:4]), generator(z)[3:4], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_logit_of_an_image_does_not_depend_on_its_batch(family):
    discriminator, images = stir(networks(family)[1]), torch.rand(4, *SHAPE) * 2 - 1
    discriminator(images)
    discriminator.eval()
    assert_close(discriminator(images)[:1], discriminator(images[:1]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("loss", options("loss"))
def test_two_iterations_move_every_weight_whatever_the_loss(tmp_path, family, loss):
    generator, discriminator = networks(family)
    loss = instantiate(OmegaConf.load(conf_dir() / "loss" / f"{loss}.yaml"))
    gan = small_gan(generator=generator, discriminator=discriminator, loss=loss, penalty=R1(1.0))
    before = weights(gan)
    fit(gan, tmp_path, 2)
    after = weights(gan)
    assert all(tensor.isfinite().all() for tensor in after.values())
    unmoved = [name for name, _ in gan.named_parameters() if torch.equal(before[name], after[name])]
    # A loss of differences of logits gives their common bias no gradient.
    assert all(name.startswith("discriminator.") and after[name].shape == (1,) for name in unmoved)


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpoint_loads_with_the_same_samples_and_logits(tmp_path, family):
    target, told = f"gan_lightning.models.{family}", {"image_shape": SHAPE, **SMALL[family]}
    settings = {
        "generator": {"_target_": f"{target}.Generator", "latent_dim": LATENT_DIM, **told},
        "discriminator": {"_target_": f"{target}.Discriminator", **told},
    }
    generator, discriminator = networks(family)
    gan = small_gan(generator=generator, discriminator=discriminator, networks=settings)
    fit(gan, tmp_path, 2).save_checkpoint(tmp_path / "last.ckpt")
    loaded, images = load_gan(tmp_path / "last.ckpt"), gan.sample(4)
    assert torch.equal(images, loaded.sample(4))
    assert torch.equal(gan.eval().discriminator(images), loaded.discriminator(images))


@pytest.mark.parametrize("family", FAMILIES)
def test_table_of_networks_has_every_weight_once(family):
    generator, discriminator = networks(family)
    gan = small_gan(generator=generator, discriminator=discriminator)
    for name, rows in network_rows(gan).items():
        assert sum(row.parameters for row in rows) == num_parameters(getattr(gan, name))


# --- The MLP and DCGAN ---------------------------------------------------------------------------------------


def test_default_mlp_has_the_layers_and_parameters_of_the_course_page():
    generator, discriminator = mlp.Generator(100, (1, 28, 28)), mlp.Discriminator((1, 28, 28))
    assert num_parameters(generator) == (100 + 1) * 256 + (256 + 1) * 512 + (512 + 1) * 784 == 559_632
    assert num_parameters(discriminator) == (784 + 1) * 512 + (512 + 1) * 256 + (256 + 1) * 1 == 533_505
    assert [type(layer).__name__ for layer in generator.layers] == [
        "Linear",
        "ReLU",
        "Linear",
        "ReLU",
        "Linear",
        "Tanh",
    ]
    assert [type(layer).__name__ for layer in discriminator.layers] == [
        "Flatten", "Linear", "LeakyReLU", "Linear", "LeakyReLU", "Linear", "Flatten",
    ]  # fmt: skip


def test_mlp_takes_widths_slope_and_dropout():
    generator = mlp.Generator(4, (3, 5, 7), hidden=[6], negative_slope=0.3)
    assert num_parameters(generator) == 5 * 6 + 7 * 105
    assert generator(torch.randn(2, 4)).shape == (2, 3, 5, 7)  # any size: nothing here is divisible by 4
    assert generator.layers[1].negative_slope == 0.3
    discriminator = mlp.Discriminator((3, 5, 7), hidden=[8, 6], dropout=0.4)
    assert num_parameters(discriminator) == 106 * 8 + 9 * 6 + 7
    assert [layer.p for layer in discriminator.modules() if isinstance(layer, nn.Dropout)] == [0.4, 0.4]
    assert not [layer for layer in mlp.Discriminator((1, 4, 4)).modules() if isinstance(layer, nn.Dropout)]


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
def test_dcgan_parameters_equal_the_sum_over_its_layers(channels, size):
    c, z = 64, 100
    generator = dcgan.Generator(z, (channels, size, size), base_channels=c)
    by_hand = z * 2 * c * (size // 4) ** 2 + 2 * 2 * c  # to S/4; BatchNorm scale and shift, no bias before it
    by_hand += 2 * c * c * 16 + 2 * c  # to S/2
    by_hand += c * channels * 16 + channels  # to S
    assert num_parameters(generator) == by_hand
    discriminator = dcgan.Discriminator((channels, size, size), base_channels=c)
    by_hand = channels * c * 16 + c
    by_hand += c * 2 * c * 16 + 2 * c
    by_hand += 2 * c * (size // 4) ** 2 + 1
    assert num_parameters(discriminator) == by_hand


def test_dcgan_follows_the_papers_rules_for_norm_and_activation():
    generator = dcgan.Generator(100, (1, 28, 28)).layers
    discriminator = dcgan.Discriminator((1, 28, 28), batch_norm=True).layers
    assert isinstance(generator[-1], nn.Tanh) and isinstance(generator[-2], nn.ConvTranspose2d)  # no norm at G's output
    assert isinstance(discriminator[0], nn.Conv2d) and isinstance(discriminator[1], nn.LeakyReLU)  # none at D's input
    assert [layer.negative_slope for layer in discriminator if isinstance(layer, nn.LeakyReLU)] == [0.2, 0.2]
    assert [layer.num_features for layer in generator if isinstance(layer, nn.BatchNorm2d)] == [128, 64]
    assert [layer.num_features for layer in discriminator if isinstance(layer, nn.BatchNorm2d)] == [128]
    for layer in (*generator, *discriminator):
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.eps == 1e-5  # BatchNorm2d(c, 0.8) would set this


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mlp.Generator(8, (1, 8, 8), hidden=[16, 0]), r"^hidden=\[16, 0\]: widths"),
        (lambda: mlp.Discriminator((1, 8, 8), dropout=1.0), "^dropout=1.0"),
        (lambda: mlp.Discriminator((1, 8, 8), dropout=-0.1), "^dropout=-0.1"),
        (
            lambda: mlp.Generator(8, (1, 8, 8), init="xavier"),
            "init=xavier must be one of default, glorot_uniform, dcgan",
        ),
    ],
)
def test_value_out_of_range_is_refused_by_its_key(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# --- Initial weights -----------------------------------------------------------------------------------------


def layers():
    return nn.Sequential(nn.Linear(200, 300), nn.Conv2d(16, 32, 5), nn.ConvTranspose2d(32, 16, 5), nn.BatchNorm2d(4000))


def test_dcgan_scheme_draws_normal_weights_of_deviation_002_and_zero_biases():
    linear, conv, transposed, norm = network = layers()
    initialize(network, "dcgan")
    for layer in (linear, conv, transposed):
        assert_close(layer.weight.std().item(), 0.02, rtol=0.03, atol=0)
        assert abs(layer.weight.mean()) < 6e-4  # three standard errors of the smallest layer
        assert (layer.weight.abs() > 0.04).float().mean() > 0.04  # normal, not uniform: 4.6 % lie beyond two deviations
        assert (layer.bias == 0).all()
    assert_close(norm.weight.mean().item(), 1.0, rtol=2e-3, atol=0)
    assert_close(norm.weight.std().item(), 0.02, rtol=0.05, atol=0)
    assert (norm.bias == 0).all()


def test_glorot_scheme_draws_uniform_weights_within_its_bound_and_zero_biases():
    linear, conv, transposed, norm = network = layers()
    initialize(network, "glorot_uniform")
    for layer, fans in (linear, 200 + 300), (conv, (16 + 32) * 25), (transposed, (16 + 32) * 25):
        bound = (6 / fans) ** 0.5
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert_close(layer.weight.std().item(), bound / 3**0.5, rtol=0.03, atol=0)
        assert (layer.bias == 0).all()
    assert (norm.weight == 1).all()


def test_default_scheme_keeps_what_pytorch_drew():
    network = layers()
    before = [parameter.clone() for parameter in network.parameters()]
    initialize(network, "default")
    assert all(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize("family", [mlp, dcgan], ids=["mlp", "dcgan"])
def test_init_reaches_the_networks_own_layers(family):
    for network in (family.Generator(8, (1, 28, 28), init="dcgan"), family.Discriminator((1, 28, 28), init="dcgan")):
        weights = [
            layer.weight for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
        ]
        assert weights
        for weight in weights:
            assert_close(weight.std().item(), 0.02, rtol=0.1, atol=0)
