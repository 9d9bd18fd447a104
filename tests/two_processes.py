"""Train small GANs with every loss, penalty and order of turns; under torchrun on its processes, else on one.

torchrun --nproc-per-node 2 tests/two_processes.py FOLDER      # FOLDER/0.pt and FOLDER/1.pt, one of each rank

And score one: FOLDER/scores.json.
"""

import itertools
import json
import os
import sys
from pathlib import Path

import torch
from lightning import Trainer
from test_alarms import Painter, frozen
from test_evaluation import SHADES, Stub, evaluated
from test_gan import BATCH_SIZE, LATENT_DIM, SHAPE, RandomImages
from torch import Tensor

from gan_lightning.callbacks.evaluation import Evaluation
from gan_lightning.data import ImageDataModule
from gan_lightning.devices import SyncBatchNorm
from gan_lightning.ema import EMA
from gan_lightning.gan import GAN
from gan_lightning.losses import Minimax, NonSaturating
from gan_lightning.models import dcgan
from gan_lightning.penalties import R1

CASES = {
    f"{type(loss).__name__}-{penalty and 'R1'}-n_critic {n_critic}-reuse_fake {reuse_fake}": {
        "loss": loss, "penalty": penalty, "n_critic": n_critic, "reuse_fake": reuse_fake
    }
    for loss, penalty, n_critic, reuse_fake in itertools.product(
        (NonSaturating(), Minimax()), (None, R1(0.3)), (1, 3), (False, True)
    )
}  # fmt: skip


def train(folder: Path, world_size: int, iterations: int = 6, **settings: object) -> dict[str, Tensor]:
    """All weights and BatchNorm statistics after some iterations, in float64."""
    torch.manual_seed(0)
    gan = GAN(
        dcgan.Generator(LATENT_DIM, SHAPE, base_channels=4),
        dcgan.Discriminator(SHAPE, base_channels=4),
        ema=EMA(),
        latent_dim=LATENT_DIM,
        **settings,  # type: ignore[arg-type]
    )
    several = {"strategy": "ddp_find_unused_parameters_true", "plugins": [SyncBatchNorm()]} if world_size > 1 else {}
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
    trainer.fit(gan, ImageDataModule(folder, RandomImages(), SHAPE, batch_size=BATCH_SIZE))
    return {name: tensor.clone() for name, tensor in gan.state_dict().items()}


def scores(folder: Path, world_size: int) -> dict[str, float] | None:
    """Of samples of which some are like real ones and some are not; None on any but the first process."""
    evaluation = Evaluation(Stub())
    several = {"strategy": "ddp_find_unused_parameters_true"} if world_size > 1 else {}
    evaluated(
        frozen(generator=Painter([*SHADES, 130], noise=3.0)),  # four shades of the data and one of its own
        folder,
        evaluation=evaluation,
        devices=world_size,
        use_distributed_sampler=False,
        **several,
    )
    return evaluation.scores and evaluation.scores.to_dict()


if __name__ == "__main__":
    out, world_size = Path(sys.argv[1]), int(os.environ["WORLD_SIZE"])
    states = {name: train(out, world_size, **settings) for name, settings in CASES.items()}
    torch.save(states, out / f"{os.environ['RANK']}.pt")
    if found := scores(out, world_size):
        (out / "scores.json").write_text(json.dumps(found))
