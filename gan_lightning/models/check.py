"""Checks that the two networks and the other parts of a GAN fit together, before training starts.

Without them PyTorch would fail in the middle of a step, with an error that speaks of matrices.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

PARTS = {  # an attribute that each part must have, and an example
    "loss": ("discriminator", "gan_lightning.losses.NonSaturating()"),
    "conditioning": ("in_turn", "gan_lightning.conditioning.Conditioning(10)"),
    "penalty": ("__call__", "gan_lightning.penalties.R1(2.4)"),
    "constraint": ("__call__", "gan_lightning.penalties.WeightClipping()"),
    "augment": ("__call__", "gan_lightning.augment.DiffAugment()"),
    "ema": ("follow", "gan_lightning.ema.EMA()"),
}


def check_numbers(latent_dim: int, n_critic: int, max_gradient_norm: float | None) -> None:
    """Raises ValueError for a number that GAN cannot have."""
    for key, value in {"latent_dim": latent_dim, "n_critic": n_critic}.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{key}={value} must be a whole number, 1 or more")
    if max_gradient_norm is not None and max_gradient_norm <= 0:
        raise ValueError(f"max_gradient_norm={max_gradient_norm} must be positive, or null for no limit")


def check_parts(**parts: Any) -> None:
    """Raises ValueError if a part, by its name in PARTS, is something else."""
    for name, part in parts.items():
        attribute, example = PARTS[name]
        if part and not hasattr(part, attribute):
            raise ValueError(f"{name}={part!r} cannot be used; write {name}={example}, or None")


def check_networks(generator: nn.Module, discriminator: nn.Module, num_classes: int) -> None:
    """Raises ValueError if a network does not take labels, or knows another number of classes than the conditioning."""
    for name, network, inputs in ("generator", generator, "z"), ("discriminator", discriminator, "images"):
        forward = uncompiled(network).forward
        try:
            inspect.signature(forward).bind(inputs, "labels")
        except TypeError as error:
            raise ValueError(
                f"{name}: {type(network).__name__}.forward{inspect.signature(forward)} is called with labels as well, "
                f"which are None without classes; write forward(self, {inputs}, labels=None)"
            ) from error
        known = getattr(network, "num_classes", None)
        if known not in (None, num_classes):
            raise ValueError(
                f"model.{name}.num_classes={known} and conditioning.num_classes={num_classes} must be the same; "
                f"in Python: GAN(..., conditioning=Conditioning({known}))"
            )


def check_classes(num_classes: int, in_data: int) -> None:
    """Raises ValueError if the conditioning and the data disagree on the number of classes; 0 in the first: none."""
    if num_classes not in (0, in_data):
        raise ValueError(
            f"conditioning.num_classes={num_classes} and data.num_classes={in_data} must be the same; in Python: "
            f"ImageDataModule.from_tensors(images, labels, num_classes={num_classes}); "
            "without labels: conditioning=none"
        )


@torch.no_grad()
def check_shapes(
    generator: nn.Module,
    discriminator: nn.Module,
    latent_dim: int,
    labels: Tensor | None,
    image_shape: Sequence[int] | None,
) -> None:
    """Make two images, and show them to the discriminator.

    Args:
        labels: (2,) int64, or None.
        image_shape: (C, H, W) of the data; None: any.

    Raises:
        ValueError: if a network does not take its input, or the images have another shape.
    """
    weight = next(generator.parameters())
    z = torch.zeros(2, latent_dim, device=weight.device, dtype=weight.dtype)
    labels = None if labels is None else labels.to(z.device)
    key, way_out = f"latent_dim={latent_dim}", "build the generator with the latent_dim that the GAN has"
    try:
        fake = call_in_eval_mode(uncompiled(generator), z, labels)
        shape = tuple(image_shape or fake.shape[1:])
        key, way_out = f"data.image_shape={list(shape)}", f"build both networks with image_shape={shape}"
        if fake.shape[1:] != shape:
            raise ValueError(f"{key}: the generator makes images of {list(fake.shape[1:])}; {way_out}")
        call_in_eval_mode(uncompiled(discriminator), fake, labels)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ValueError(f"{key} is not what the networks take ({error}); {way_out}") from error


def call_in_eval_mode(network: nn.Module, inputs: Tensor, labels: Tensor | None) -> Any:
    """The network's output in evaluation mode; its own mode is restored."""
    was_training = network.training
    network.eval()
    try:
        return network(inputs, labels)
    finally:
        network.train(was_training)


def uncompiled(network: nn.Module) -> nn.Module:
    """The network that torch.compile was given; any other network is returned as it is."""
    return getattr(network, "_orig_mod", network)
