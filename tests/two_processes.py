"""Train small GANs with every loss and penalty of conf/, whatever else the step can have, and every order of turns.

Under torchrun on its processes:

torchrun --nproc-per-node 2 tests/two_processes.py FOLDER      # FOLDER/0.pt and FOLDER/1.pt, one of each rank

And score one: FOLDER/scores.json. `write_files(FOLDER)` comes before, for the data sets that have some.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cifar_files
import picture_files
import torch
from hydra.utils import instantiate
from lightning import Trainer
from omegaconf import OmegaConf
from test_alarms import Painter, frozen
from test_evaluation import SHADES, Stub, evaluated, shades
from test_gan import BATCH_SIZE, LATENT_DIM, SHAPE, RandomImages
from torch import Tensor

from gan_lightning.callbacks.evaluation import Evaluation
from gan_lightning.conditioning import Conditioning
from gan_lightning.data import ImageDataModule, StackedDataModule
from gan_lightning.data.folder import FolderReader
from gan_lightning.data.module import Tensors
from gan_lightning.data.vision import VisionReader
from gan_lightning.devices import SameBuffers, SyncBatchNorm
from gan_lightning.ema import EMA
from gan_lightning.files import conf_dir, options
from gan_lightning.gan import GAN
from gan_lightning.models import dcgan, mlp
from gan_lightning.models.labels import KINDS
from gan_lightning.schedules import Linear

OBJECTIVES = [(loss, "r1") for loss in options("loss")] + [
    ("non_saturating", penalty) for penalty in options("penalty")
]
CASES = {
    f"{loss}, {penalty}, {'' if batch_norm else 'no '}BatchNorm": {
        "loss": loss, "penalty": penalty, "batch_norm": batch_norm
    }
    for loss, penalty in OBJECTIVES
    for batch_norm in (True, False)
} | {
    "weight clipping": {"loss": "wasserstein", "penalty": "none", "constraint": "weight_clipping", "batch_norm": False},
    "augmentation": {"augment": "diffaugment", "penalty": "r1_r2"},
    "spectral norm": {"loss": "hinge", "penalty": "none", "steady": ("spectral_norm",), "batch_norm": False},
    "spectral norm, penalty": {"penalty": "gradient_penalty", "steady": ("spectral_norm",), "batch_norm": False},
    "minibatch deviation": {"penalty": "r1_r2", "steady": ("minibatch_std",), "batch_norm": False},
    "schedule of the weight": {"weight_schedule": Linear()},
    "n_critic 3": {"n_critic": 3},
    "reuse_fake": {"reuse_fake": True},
    "n_critic 3, reuse_fake": {"n_critic": 3, "reuse_fake": True},
    "max_gradient_norm": {"max_gradient_norm": 0.05},
} | {
    f"{kind}, {'' if batch_norm else 'no '}BatchNorm": {"kind": kind, "batch_norm": batch_norm}
    for kind in KINDS if kind != "none"
    for batch_norm in (True, False)
    if batch_norm or kind != "projection"  # which has BatchNorm in any generator
} | {
    f"data set {name}": {"data": name, "kind": "concat"} for name in ("stacked", "cifar10", "image_folder")
}  # fmt: skip
OWN_BATCH_NORM = "each its own BatchNorm"  # trainer.sync_batchnorm=false: not the update of one process


def build(group: str, option: str) -> object:
    """A loss, penalty, … as conf/ has it."""
    return instantiate(OmegaConf.load(conf_dir() / group / f"{option}.yaml")) or None


def write_files(folder: Path) -> None:
    cifar_files.write(folder / "cifar10", each=20)
    picture_files.write(folder / "image_folder", num=60, classes=3)


def data_set(name: str, folder: Path) -> ImageDataModule:
    """One of each kind, of the size of the others; of what was written to the folder, or made here."""
    if name == "cifar10":
        splits = {"train": {"train": True}, "test": {"train": False}}
        checksums = cifar_files.checksums(folder / name)
        reader = VisionReader(cifar_files.SmallCIFAR10, SHAPE, checksums, [], **splits)
        return ImageDataModule(folder / name, reader, SHAPE, BATCH_SIZE, num_classes=10)
    if name == "image_folder":
        reader = FolderReader(SHAPE, folder / "cache")
        return ImageDataModule(folder / name, reader, SHAPE, BATCH_SIZE, num_classes=3)
    images, _ = RandomImages().read(None, "train")
    labels = torch.arange(len(images)) % 3
    if name == "stacked":
        two = (2, *SHAPE[1:])
        return StackedDataModule(
            folder, Tensors(images, labels), two, batch_size=BATCH_SIZE, num_classes=9, num_test=10
        )
    return ImageDataModule.from_tensors(images, labels, batch_size=BATCH_SIZE, num_classes=3)


def train(
    folder: Path,
    world_size: int,
    iterations: int = 6,
    loss: str = "non_saturating",
    penalty: str = "r1",
    constraint: str = "none",
    augment: str = "none",
    weight_schedule: Callable[[int, float], float] | None = None,
    batch_norm: bool = True,
    steady: Sequence[str] = (),
    sync: bool = True,
    kind: str = "none",
    data: str = "noise",
    files: Path | None = None,
    **settings: object,
) -> dict[str, Tensor]:
    """All weights and BatchNorm statistics after some iterations, in float64.

    Args:
        files: where `write_files` has written; None: to `folder`.
    """
    images = data_set(data, files or folder)
    torch.manual_seed(0)
    classes = images.num_classes if kind != "none" else 0
    told = {"conditioning": kind, "num_classes": classes}
    generator = (
        dcgan.Generator(LATENT_DIM, images.image_shape, base_channels=4, **told)  # type: ignore[arg-type]
        if batch_norm
        else mlp.Generator(LATENT_DIM, images.image_shape, **told)  # type: ignore[arg-type]
    )
    gan = GAN(
        generator,
        dcgan.Discriminator(
            images.image_shape,
            base_channels=4,
            batch_norm=batch_norm,
            **dict.fromkeys(steady, True),
            **told,  # type: ignore[arg-type]
        ),
        conditioning=Conditioning(classes),
        loss=build("loss", loss),  # type: ignore[arg-type]
        penalty=build("penalty", penalty),  # type: ignore[arg-type]
        constraint=build("constraint", constraint),  # type: ignore[arg-type]
        augment=build("augment", augment),  # type: ignore[arg-type]
        ema=EMA(),
        latent_dim=LATENT_DIM,
        **settings,  # type: ignore[arg-type]
    )
    if weight_schedule:
        gan.penalty.schedule = weight_schedule
    several = {"strategy": "ddp_find_unused_parameters_true", "callbacks": [SameBuffers()]} if world_size > 1 else {}
    if several and sync:
        several["plugins"] = [SyncBatchNorm()]
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=world_size,
        precision="64-true",
        max_steps=iterations,
        logger=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **several,
    )
    trainer.fit(gan, images)
    return {name: tensor.clone() for name, tensor in gan.state_dict().items()}


def scores(folder: Path, world_size: int) -> dict[str, float] | None:
    """Of samples of which some are like real ones and some are not, and some of the class asked for.

    None on any but the first process.
    """
    evaluation = Evaluation(Stub())
    several = {"strategy": "ddp_find_unused_parameters_true"} if world_size > 1 else {}
    evaluated(
        frozen(
            generator=Painter([*SHADES, 130], noise=3.0),  # four shades of the data and one of its own
            discriminator=mlp.Discriminator(SHAPE, hidden=[16], conditioning="concat", num_classes=len(SHADES)),
            conditioning=Conditioning(len(SHADES)),
        ),
        folder,
        data=shades(folder, num_classes=len(SHADES)),
        evaluation=evaluation,
        devices=world_size,
        use_distributed_sampler=False,
        **several,
    )
    return evaluation.scores and evaluation.scores.to_dict()


if __name__ == "__main__":
    out, world_size = Path(sys.argv[1]), int(os.environ["WORLD_SIZE"])
    states = {name: train(out, world_size, **settings) for name, settings in CASES.items()}
    states[OWN_BATCH_NORM] = train(out, world_size, sync=False)
    torch.save(states, out / f"{os.environ['RANK']}.pt")
    if found := scores(out, world_size):
        (out / "scores.json").write_text(json.dumps(found))
