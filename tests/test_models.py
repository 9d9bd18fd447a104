import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gan_lightning.models import dcgan, mlp
from gan_lightning.models.init import initialize

FAMILIES = [mlp, dcgan]
SHAPES = [(1, 28, 28), (3, 28, 28), (1, 32, 32), (3, 32, 32)]
LATENT_DIM = 10


def name(value):
    return value.__name__.rpartition(".")[2] if hasattr(value, "__name__") else str(value)


def noise(num, latent_dim=LATENT_DIM, seed=0):
    return torch.randn(num, latent_dim, generator=torch.Generator().manual_seed(seed))


def num_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("family", FAMILIES, ids=name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_generator_makes_images_of_the_asked_shape_between_minus_one_and_one(family, shape):
    generator = family.Generator(LATENT_DIM, shape)
    images = generator(100 * noise(5))
    assert images.shape == (5, *shape)
    assert images.abs().max() <= 1


@pytest.mark.parametrize("family", FAMILIES, ids=name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("batch_size", [1, 5])
def test_discriminator_gives_one_logit_per_image(family, shape, batch_size):
    logits = family.Discriminator(shape).eval()(torch.rand(batch_size, *shape))
    assert logits.shape == (batch_size,)


def test_discriminators_output_is_a_logit_not_a_probability():
    for family in FAMILIES:
        discriminator = family.Discriminator((1, 28, 28)).eval()
        with torch.no_grad():
            list(discriminator.parameters())[-1].fill_(-7.0)  # bias of the last layer
        assert (discriminator(torch.zeros(2, 1, 28, 28)) < -5).all()


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
    assert generator(noise(2, 4)).shape == (2, 3, 5, 7)  # any size: nothing here is divisible by 4
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


@pytest.mark.parametrize("shape", [(1, 30, 30), (1, 27, 27), (1, 28, 32)], ids=str)
@pytest.mark.parametrize("build", [lambda shape: dcgan.Generator(8, shape), dcgan.Discriminator], ids=["G", "D"])
def test_dcgan_refuses_a_size_it_cannot_halve_twice_by_its_key(build, shape):
    with pytest.raises(ValueError, match=r"data\.image_shape=.*model=dcgan.*divisible by 4.*model=mlp"):
        build(shape)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: dcgan.Generator(8, (1, 8, 8), base_channels=0), "model.generator.base_channels=0"),
        (lambda: dcgan.Discriminator((1, 8, 8), base_channels=-1), "model.discriminator.base_channels=-1"),
        (lambda: mlp.Generator(8, (1, 8, 8), hidden=[16, 0]), r"hidden.*\[8, 16, 0\]"),
        (lambda: mlp.Discriminator((1, 8, 8), dropout=1.0), "model.discriminator.dropout=1.0"),
        (lambda: mlp.Discriminator((1, 8, 8), dropout=-0.1), "model.discriminator.dropout=-0.1"),
        (
            lambda: mlp.Generator(8, (1, 8, 8), init="xavier"),
            "init=xavier must be one of default, glorot_uniform, dcgan",
        ),
    ],
)
def test_value_out_of_range_is_refused_by_its_key(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("family", FAMILIES, ids=name)
def test_one_z_gives_one_image_alone_or_in_a_batch(family):
    generator = family.Generator(LATENT_DIM, (1, 28, 28))
    generator.train()
    generator(noise(16, seed=1))  # moves BatchNorm's statistics off their start
    generator.eval()
    z = noise(8)
    assert_close(generator(z[3:4]), generator(z)[3:4], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES, ids=name)
def test_every_parameter_gets_a_gradient_from_the_generators_turn(family):
    generator, discriminator = family.Generator(LATENT_DIM, (1, 28, 28)), family.Discriminator((1, 28, 28))
    discriminator(generator(noise(4))).sum().backward()
    for network in (generator, discriminator):
        assert all(parameter.grad is not None for parameter in network.parameters())


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


@pytest.mark.parametrize("family", FAMILIES, ids=name)
def test_init_reaches_the_networks_own_layers(family):
    for network in (family.Generator(8, (1, 28, 28), init="dcgan"), family.Discriminator((1, 28, 28), init="dcgan")):
        weights = [
            layer.weight for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
        ]
        assert weights
        for weight in weights:
            assert_close(weight.std().item(), 0.02, rtol=0.1, atol=0)
