import pytest
import torch
from families import networks, num_parameters
from test_gan import LATENT_DIM
from torch import nn
from torch.testing import assert_close

from gan_lightning.models import resnet


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


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
    generator = networks("resnet", (3, 32, 32))[0]
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
    discriminator = networks("resnet")[1].eval()
    block, x = discriminator.layers[-5], torch.randn(2, 4, 4, 4)
    assert isinstance(block, resnet.Residual)
    before = x.clone()
    assert_close(block(x), x + block.residual(x))
    assert torch.equal(x, before)
