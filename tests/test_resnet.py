import pytest
import torch
from test_gan import LATENT_DIM, fit, small_gan, weights
from torch import nn
from torch.testing import assert_close

from gan_lightning.callbacks.network_table import network_rows
from gan_lightning.losses import Hinge, LeastSquares, Minimax, NonSaturating, Relativistic, Wasserstein
from gan_lightning.models import resnet
from gan_lightning.models.conditioning import KINDS
from gan_lightning.penalties import R1

SHAPES = [(channels, size, size) for size in (28, 32, 64) for channels in (1, 3)]
LOSSES = [NonSaturating, Minimax, LeastSquares, Hinge, Wasserstein, Relativistic]
K = 3
LABELS = torch.tensor([0, 2, 1, 2])


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def networks(shape=(1, 8, 8), base_channels=4, **settings):
    told = {"base_channels": base_channels, **settings}
    return resnet.Generator(LATENT_DIM, shape, **told), resnet.Discriminator(shape, **told)


def num_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_images_and_logits_have_the_asked_shapes(shape):
    generator, discriminator = networks(shape)
    images = generator(100 * torch.randn(3, LATENT_DIM))
    assert images.shape == (3, *shape) and images.abs().max() <= 1
    assert discriminator(images).shape == (3,)


@pytest.mark.parametrize("shape", [(1, 30, 30), (1, 27, 27), (1, 28, 32), (3, 7, 7), (1, 2, 2)], ids=str)
@pytest.mark.parametrize("build", [lambda shape: resnet.Generator(8, shape), resnet.Discriminator], ids=["G", "D"])
def test_size_that_is_no_small_one_doubled_is_refused_by_its_key(build, shape):
    with pytest.raises(ValueError, match=r"^data\.image_shape=\[.*model=resnet needs square.*28, 32 or 64.*model=mlp$"):
        build(shape)


def test_value_out_of_range_is_refused_by_its_key():
    with pytest.raises(ValueError, match=r"^model\.generator\.base_channels=0 must be 1 or more"):
        resnet.Generator(8, (1, 8, 8), base_channels=0)
    with pytest.raises(ValueError, match=r"^model\.discriminator\.base_channels=-1 must be 1 or more"):
        resnet.Discriminator((1, 8, 8), base_channels=-1)


# --- The paper's sizes, appendix B.4: 3x3 convolutions with bias, 1x1 ones in shortcuts that are not the identity ----


def conv(channels_in, channels_out, size=3):
    return channels_in * channels_out * size**2 + channels_out


def up(channels_in, channels_out):
    norms = 2 * channels_in + 2 * channels_out
    return (
        norms + conv(channels_in, channels_out) + conv(channels_out, channels_out) + conv(channels_in, channels_out, 1)
    )


def down(channels_in, channels_out):
    return conv(channels_in, channels_in) + conv(channels_in, channels_out) + conv(channels_in, channels_out, 1)


def first(channels_in, channels_out):
    return conv(channels_in, channels_out) + conv(channels_out, channels_out) + conv(channels_in, channels_out, 1)


@pytest.mark.parametrize(
    ("size", "generators", "discriminators"),
    [
        # Table 3: dense to 4x4x256, three blocks of 256; two blocks of 128 that halve, two that do not.
        (
            32,
            129 * 16 * 256 + 3 * up(256, 256) + 2 * 256 + conv(256, 3),
            first(3, 128) + down(128, 128) + 2 * 2 * conv(128, 128) + 129,
        ),
        # Table 4: dense to 6x6x512, blocks of 256, 128, 64; of 64, 128, 256, 512, 1024.
        (
            48,
            129 * 36 * 512 + up(512, 256) + up(256, 128) + up(128, 64) + 2 * 64 + conv(64, 3),
            first(3, 64) + down(64, 128) + down(128, 256) + down(256, 512) + down(512, 1024) + 1025,
        ),
        # The authors' code for 64x64.
        (
            64,
            129 * 16 * 1024 + up(1024, 512) + up(512, 256) + up(256, 128) + up(128, 64) + 2 * 64 + conv(64, 3),
            first(3, 64) + down(64, 128) + down(128, 256) + down(256, 512) + down(512, 1024) + 1025,
        ),
    ],
)
def test_parameters_at_the_papers_sizes_are_its_own(size, generators, discriminators):
    with torch.device("meta"):
        generator = resnet.Generator(128, (3, size, size), base_channels=256)
        discriminator = resnet.Discriminator((3, size, size), base_channels=128, spectral_norm=False)
    assert num_parameters(generator) == generators
    assert num_parameters(discriminator) == discriminators
    if size == 32:
        assert (generators, discriminators) == (4_276_739, 1_053_825)


def test_networks_follow_the_papers_rules():
    generator = networks((3, 32, 32))[0]
    discriminator = resnet.Discriminator((3, 32, 32), base_channels=4, spectral_norm=False)
    sizes = []
    for layer in discriminator.layers:
        layer.register_forward_hook(lambda layer, _, output: sizes.append((type(layer).__name__, *output.shape[1:])))
    discriminator(generator(torch.randn(2, LATENT_DIM)))
    assert sizes == [
        *[("Residual", 4, size, size) for size in (16, 8, 8, 8)],
        ("ReLU", 4, 8, 8), ("SumPooling", 4), ("Linear", 1), ("Flatten",),
    ]  # fmt: skip
    blocks = [block for block in discriminator.layers if isinstance(block, resnet.Residual)]
    assert [type(block.residual[0]).__name__ for block in blocks] == ["Conv2d", "ReLU", "ReLU", "ReLU"]
    assert [type(block.shortcut).__name__ for block in blocks] == ["Sequential", "Sequential", "Identity", "Identity"]
    assert not [layer for layer in discriminator.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert isinstance(generator.layers[-1], nn.Tanh)


def test_first_activation_of_a_block_leaves_the_shortcuts_input_as_it_is():
    discriminator = networks()[1].eval()
    block, x = discriminator.layers[-5], torch.randn(2, 4, 4, 4)
    assert isinstance(block, resnet.Residual)
    before = x.clone()
    assert_close(block(x), x + block.residual(x))
    assert torch.equal(x, before)


# --- Training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 64, 64)], ids=str)
def test_every_parameter_gets_a_gradient_whatever_the_conditioning(kind, shape):
    told = {"conditioning": kind, "num_classes": 0 if kind == "none" else K}
    labels = None if kind == "none" else LABELS
    generator, discriminator = networks(shape, **told)
    images = generator(torch.randn(4, LATENT_DIM), labels)
    output = discriminator(images, labels)
    outputs = output if kind == "auxiliary" else (output,)
    assert [part.shape for part in outputs] == [(4,), (4, K)][: len(outputs)]
    sum(part.square().sum() for part in outputs).backward()
    for network in (generator, discriminator):
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize("loss", LOSSES)
def test_trains_two_iterations_under_every_loss(tmp_path, loss):
    generator, discriminator = networks()
    gan = small_gan(generator=generator, discriminator=discriminator, loss=loss(), penalty=R1(1.0))
    before = weights(gan)
    fit(gan, tmp_path, 2)
    after = weights(gan)
    assert all(tensor.isfinite().all() for tensor in after.values())
    moved = [name for name, _ in gan.named_parameters() if not torch.equal(before[name], after[name])]
    # The last bias gets no gradient from a loss that looks at differences of logits alone.
    assert len(moved) >= len(list(gan.parameters())) - 1


def test_logit_of_an_image_does_not_depend_on_its_batch_unless_asked():
    images = torch.rand(4, 1, 8, 8) * 2 - 1
    for minibatch_std in (False, True):
        discriminator = resnet.Discriminator((1, 8, 8), base_channels=4, minibatch_std=minibatch_std).eval()
        alone = discriminator(images[:1])
        assert torch.allclose(discriminator(images)[:1], alone, atol=1e-6) == (not minibatch_std)


def test_one_z_gives_one_image_alone_or_in_a_batch():
    generator = networks()[0]
    generator(torch.randn(16, LATENT_DIM))  # moves BatchNorm's statistics off their start
    generator.eval()
    z = torch.randn(8, LATENT_DIM)
    assert_close(generator(z[3:4]), generator(z)[3:4], rtol=0, atol=1e-5)


def test_table_of_networks_has_every_weight_once():
    generator, discriminator = networks()
    gan = small_gan(generator=generator, discriminator=discriminator)
    for name, rows in network_rows(gan).items():
        assert sum(row.parameters for row in rows) == num_parameters(getattr(gan, name))
