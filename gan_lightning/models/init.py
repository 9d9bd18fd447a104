"""Initial weights, by name."""

from collections.abc import Callable

from torch import nn


def keep_default(layer: nn.Module) -> None:
    """PyTorch's own initial weights."""


def glorot_uniform(layer: nn.Module) -> None:
    """Glorot & Bengio 2010, equation 16; biases 0. Keras' default."""
    if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def dcgan(layer: nn.Module) -> None:
    """Radford et al. 2016, section 4: weights N(0, 0.02), BatchNorm's N(1, 0.02), biases 0. https://arxiv.org/abs/1511.06434"""
    if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d) and layer.affine:
        nn.init.normal_(layer.weight, 1.0, 0.02)
    else:
        return
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


SCHEMES: dict[str, Callable[[nn.Module], None]] = {
    "default": keep_default,
    "glorot_uniform": glorot_uniform,
    "dcgan": dcgan,
}


def initialize(network: nn.Module, scheme: str) -> None:
    """Draw the weights of all layers of `network`.

    Raises:
        ValueError: if there is no such scheme.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"init={scheme} must be one of {', '.join(SCHEMES)}")
    network.apply(SCHEMES[scheme])
