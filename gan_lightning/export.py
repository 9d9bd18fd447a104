"""Write a trained generator to a file that runs without this package: checkpoint -> ONNX or torch.export."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from gan_lightning.cli.checks import check_values, one_of
from gan_lightning.cli.command import command
from gan_lightning.files import check_suffix
from gan_lightning.terminal import working

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import Tensor, nn

log = logging.getLogger(__name__)

INPUTS = ["z", "labels"]  # labels: of a conditional generator only
NAMES = {"onnx": "generator.onnx", "torch": "generator.pt2"}
NEEDED = ("onnx", "onnxscript", "onnxruntime")  # by torch's exporter, and to run the file once
TOLERANCE = 1e-4  # of images in [-1, 1], where one step of 256 is 8e-3


@command("export")
def main(config: DictConfig) -> None:
    check_values(config, {"format": one_of(*NAMES)})
    check_suffix(config.out, config.format, {format: Path(name).suffix for format, name in NAMES.items()})
    missing = [name for name in NEEDED if find_spec(name) is None]
    if config.format == "onnx" and missing:
        raise ValueError(
            f"format=onnx needs {' and '.join(missing)}: pip install 'gan-lightning[export]'; or use format=torch"
        )

    import torch

    from gan_lightning.files import output_path, written_whole
    from gan_lightning.runs.checkpoint import load_gan
    from gan_lightning.runs.folder import find_checkpoint, run_folder

    file = find_checkpoint(config.ckpt)
    out = output_path(config.out, run_folder(file) / "export" / NAMES[config.format], example=NAMES[config.format])
    gan = load_gan(file)
    noise = torch.Generator().manual_seed(0)
    batches: list[tuple[Tensor, ...]] = [(torch.randn(size, gan.latent_dim, generator=noise),) for size in (1, 7)]
    if num_classes := gan.conditioning.num_classes:
        batches = [(z, torch.randint(num_classes, (len(z),), generator=noise)) for (z,) in batches]

    with working(f"writing {out.name}, and comparing its images"), written_whole(out) as part:
        write(gan.sampling_generator, batches[-1], part, config.format)
        exported = load(part, config.format)
        difference = torch.cat([exported(*batch) - gan.generate(*batch) for batch in batches]).abs().max().item()
        if not difference <= TOLERANCE:  # nan neither
            raise ValueError(
                f"format={config.format}: the exported generator's images differ from PyTorch's by {difference:.1e}, "
                f"over {TOLERANCE:.0e}, and are not kept; try format={'torch' if config.format == 'onnx' else 'onnx'}"
            )
    log.info("generator of %s -> %s", file, out)
    log.info("largest difference from PyTorch's images, on batches of 1 and 7: %.1e", difference)


def write(generator: nn.Module, inputs: tuple[Tensor, ...], path: Path, format: str) -> None:
    """Trace the generator, and write it for any batch size B.

    Args:
        inputs: (B, Z) latents; for a conditional generator also (B,) labels.
    """
    import torch

    names = INPUTS[: len(inputs)]
    if format == "torch":
        batch = torch.export.Dim("batch")
        program = torch.export.export(generator, inputs, dynamic_shapes={name: {0: batch} for name in names})
        with path.open("wb") as file:  # given a name, torch insists on .pt2
            torch.export.save(program, file)
    else:
        for name in "onnx_ir", "onnxscript":  # they report every pass of their optimizer
            logging.getLogger(name).setLevel(logging.WARNING)
        torch.onnx.export(
            generator,
            inputs,
            path,
            input_names=names,
            output_names=["images"],
            # The exporter finds out that the axis of the labels is the same, and warns if it is named again.
            dynamic_shapes={name: {0: "batch" if name == "z" else torch.export.Dim.DYNAMIC} for name in names},
            dynamo=True,
            external_data=False,  # weights in the same file
            verbose=False,
        )


def load(path: Path, format: str) -> Callable[..., Tensor]:
    """Load the file as its user does: a function of (B, Z) latents, and (B,) labels if conditional -> (B, C, H, W)."""
    import torch

    if format == "torch":
        with path.open("rb") as file:
            return torch.export.load(file).module()

    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda *inputs: torch.from_numpy(
        session.run(["images"], {name: part.numpy() for name, part in zip(INPUTS, inputs, strict=False)})[0]
    )


if __name__ == "__main__":
    sys.exit(main())
