"""A table of the layers of both networks."""

from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from gan_lightning.gan import GAN
from gan_lightning.models.check import call_in_eval_mode


@dataclass
class Row:
    layer: str  # its class
    output: str  # its output's shape, without the batch
    parameters: int


def network_rows(gan: GAN) -> dict[str, list[Row]]:
    """All layers of G and D that contain no other layers, in the order in which they run."""
    z = torch.zeros(2, gan.latent_dim, device=gan.device)
    labels = gan.conditioning.in_turn(len(z))
    labels = labels if labels is None else labels.to(gan.device)
    with torch.no_grad():
        generator = _rows(gan.generator, z, labels)
        discriminator = _rows(gan.discriminator, gan.generate(z), labels)
    return {"generator": generator, "discriminator": discriminator}


def _rows(network: nn.Module, inputs: Tensor, labels: Tensor | None) -> list[Row]:
    rows: list[Row] = []

    def note(layer: nn.Module, _: object, output: Tensor) -> None:
        shape = " x ".join(str(size) for size in output.shape[1:]) or "1"
        name = type_before_parametrizations(layer).__name__  # spectral norm changes the class
        rows.append(Row(name, shape, sum(p.numel() for p in layer.parameters())))

    layers = [
        layer
        for name, layer in network.named_modules()
        if "parametrizations" not in name and (is_parametrized(layer) or not list(layer.children()))
    ]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    call_in_eval_mode(network, inputs.to(next(network.parameters()).dtype), labels)
    for hook in hooks:
        hook.remove()
    return rows


def rich_table(networks: dict[str, list[Row]]) -> Table:
    """For the terminal."""
    table = Table()
    table.add_column("network")
    table.add_column("layer")
    table.add_column("output shape", justify="right")
    table.add_column("parameters", justify="right")
    for name, rows in networks.items():
        for number, row in enumerate(rows):
            table.add_row(name if number == 0 else "", row.layer, row.output, f"{row.parameters:,}")
        total = sum(row.parameters for row in rows)
        table.add_row("", "total", "", f"{total:,}", style="bold", end_section=True)
    return table


def markdown_table(rows: list[Row]) -> str:
    """For TensorBoard's text tab."""
    lines = ["| layer | output shape | parameters |", "| --- | ---: | ---: |"]
    lines += [f"| {row.layer} | {row.output} | {row.parameters:,} |" for row in rows]
    return "\n".join([*lines, f"| **total** | | **{sum(row.parameters for row in rows):,}** |"])
