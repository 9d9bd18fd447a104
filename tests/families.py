"""Every family of networks, each at a size that trains in no time."""

import torch
from test_gan import LATENT_DIM, SHAPE

from gan_lightning.models import dcgan, mlp, r3gan, resnet

FAMILIES = {"mlp": mlp, "dcgan": dcgan, "resnet": resnet, "r3gan": r3gan}
SMALL = {
    "mlp": {"hidden": [16]},
    "dcgan": {"base_channels": 4},
    "resnet": {"base_channels": 4},
    "r3gan": {"base_channels": 2, "max_channels": 4, "num_blocks": 1, "group_width": 2},
}


def networks(family, shape=SHAPE, **settings):
    """A small generator and its discriminator."""
    module, told = FAMILIES[family], SMALL[family] | settings
    return module.Generator(LATENT_DIM, shape, **told), module.Discriminator(shape, **told)


def stir(network):
    """Weights as in the midst of training; at the start R3GAN's blocks are the identity, and all classes are alike."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return network


def num_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())
