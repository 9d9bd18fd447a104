"""Each recipe does what a plain PyTorch loop, written here from its description, does: losses and weights to 1e-10.

The loops share with the project only what is handed to both: the initial weights, the batches, and the seeds of noise
and dropout. Networks, losses, optimizers, penalty and average are written out again, in the textbook's form.
"""

from typing import Any, NamedTuple

import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits

from gan_lightning.noise import derive_seed
from gan_lightning.train import build_gan

ITERATIONS = 20
BATCH_SIZE = 32  # of 512 images: the twenty iterations cross into a second epoch
SEED = 3

# Weights that never move would be equal too.
MOVED = 1e-3


class Recipe(NamedTuple):
    """One recipe in textbook form. `reuse_fake`: G's turn judges the images of D's turn again."""

    overrides: list[str]
    generator: nn.Sequential
    discriminator: nn.Sequential
    adam: dict[str, Any]
    reuse_fake: bool = False
    discriminator_scale: float = 1.0
    r1: float = 0.0
    half_life: float = 0.0  # images; 0 = no averaged generator


def mlp_day24() -> Recipe:
    """100-256-512-784 with ReLU and tanh, 784-512-256-1 with LeakyReLU 0.2 and sigmoid, Adam 2e-4 as it comes."""
    return Recipe(
        overrides=["experiment=mlp_day24"],
        generator=nn.Sequential(
            nn.Linear(100, 256), nn.ReLU(),
            nn.Linear(256, 512), nn.ReLU(),
            nn.Linear(512, 784), nn.Tanh(),
            nn.Unflatten(1, (1, 28, 28)),
        ),
        discriminator=nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 512), nn.LeakyReLU(0.2),
            nn.Linear(512, 256), nn.LeakyReLU(0.2),
            nn.Linear(256, 1), nn.Sigmoid(),
        ),
        adam={"lr": 2e-4},
        reuse_fake=True,
    )  # fmt: skip


def mlp_day22() -> Recipe:
    """The denser one, with dropout 0.4; Adam with beta1 0.5 and Keras' eps; the mean of D's two halves."""
    return Recipe(
        overrides=["experiment=mlp_day22"],
        generator=nn.Sequential(
            nn.Linear(100, 256), nn.LeakyReLU(0.2),
            nn.Linear(256, 512), nn.LeakyReLU(0.2),
            nn.Linear(512, 1024), nn.LeakyReLU(0.2),
            nn.Linear(1024, 784), nn.Tanh(),
            nn.Unflatten(1, (1, 28, 28)),
        ),
        discriminator=nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 512), nn.LeakyReLU(0.2), nn.Dropout(0.4),
            nn.Linear(512, 256), nn.LeakyReLU(0.2), nn.Dropout(0.4),
            nn.Linear(256, 1), nn.Sigmoid(),
        ),
        adam={"lr": 2e-4, "betas": (0.5, 0.999), "eps": 1e-7},
        discriminator_scale=0.5,
    )  # fmt: skip


def dcgan() -> Recipe:
    """Radford et al. 2016 at 28x28, a quarter as wide to be quick."""
    return Recipe(
        overrides=[
            "model=dcgan", "model.generator.base_channels=16", "model.discriminator.base_channels=16",
            "model.discriminator.batch_norm=true", "model.generator.init=dcgan", "model.discriminator.init=dcgan",
            "loss=non_saturating", "penalty=none", "ema=null",
            "optimizer.generator.lr=2e-4", "optimizer.generator.betas=[0.5,0.999]",
            "optimizer.discriminator.lr=2e-4", "optimizer.discriminator.betas=[0.5,0.999]",
        ],
        generator=nn.Sequential(
            nn.Unflatten(1, (100, 1, 1)),
            nn.ConvTranspose2d(100, 32, 7, stride=1, padding=0, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1), nn.Tanh(),
        ),
        discriminator=nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(16, 32, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.LeakyReLU(0.2),
            nn.Conv2d(32, 1, 7), nn.Flatten(0), nn.Sigmoid(),
        ),
        adam={"lr": 2e-4, "betas": (0.5, 0.999)},
    )  # fmt: skip


def default() -> Recipe:
    """The plain default: day 24's networks, fresh noise for G's turn, R1, an averaged generator, beta1 = 0."""
    recipe = mlp_day24()
    return recipe._replace(
        overrides=[
            "model=mlp", "penalty=r1", "penalty.weight=0.3", "ema.half_life_kimg=0.4", "ema.warmup=1",
            "optimizer.generator.lr=2e-4", "optimizer.generator.betas=[0.0,0.99]",
            "optimizer.discriminator.lr=2e-4", "optimizer.discriminator.betas=[0.0,0.99]",
        ],
        adam={"lr": 2e-4, "betas": (0.0, 0.99)},
        reuse_fake=False,
        r1=0.3,
        half_life=400,
    )  # fmt: skip


RECIPES = [mlp_day24, mlp_day22, dcgan, default]


class Recorder(Callback):
    """The batches a run gets and the losses it reports."""

    def __init__(self) -> None:
        self.batches: list[Tensor] = []
        self.losses: list[tuple[float, float]] = []

    def on_train_batch_end(self, trainer: Any, gan: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.batches.append(batch[0].double())
        self.losses.append((outputs["d_loss"].item(), outputs["g_loss"].item()))


@pytest.mark.parametrize("make_recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_recipe_equals_plain_pytorch(make_recipe, compose):
    recipe = make_recipe()
    config = compose(
        *recipe.overrides,
        f"data.batch_size={BATCH_SIZE}",
        f"seed={SEED}",
        "trainer.precision=64-true",
        "trainer.max_epochs=-1",
        f"trainer.max_steps={ITERATIONS}",
        "++trainer.limit_val_batches=0",
    )
    gan = build_gan(config)
    for ours, theirs in ((gan.generator, recipe.generator), (gan.discriminator, recipe.discriminator)):
        copy_weights(ours, theirs.double())
    before = weights(recipe.generator)

    recorder = Recorder()
    trainer = instantiate(
        config.trainer, logger=False, callbacks=[recorder], enable_progress_bar=False, enable_checkpointing=False
    )
    trainer.fit(gan, instantiate(config.data))

    losses, average = train_by_hand(recipe, recorder.batches)
    close(torch.tensor(recorder.losses, dtype=torch.float64), torch.tensor(losses, dtype=torch.float64))
    for ours, theirs in ((gan.generator, recipe.generator), (gan.discriminator, recipe.discriminator)):
        for our, their in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            close(our, their)
    assert max((a - b).abs().max() for a, b in zip(before, weights(recipe.generator), strict=True)) > MOVED
    if average:
        for our, their in zip(gan.ema.generator.parameters(), average, strict=True):
            close(our, their)


def train_by_hand(recipe: Recipe, batches: list[Tensor]) -> tuple[list[tuple[float, float]], list[Tensor]]:
    """The alternating loop as a textbook prints it. Returns both losses per iteration, and the averaged generator."""
    generator, discriminator = recipe.generator, recipe.discriminator
    d_optimizer = torch.optim.Adam(discriminator.parameters(), **recipe.adam)
    g_optimizer = torch.optim.Adam(generator.parameters(), **recipe.adam)
    losses, path = [], [weights(generator)]
    assert len(batches) == ITERATIONS
    for iteration, real in enumerate(batches):
        ones, zeros = torch.ones(len(real), dtype=torch.float64), torch.zeros(len(real), dtype=torch.float64)
        noise = torch.Generator().manual_seed(derive_seed(SEED, iteration))
        torch.manual_seed(derive_seed(SEED, iteration, 1))  # dropout

        fake = generator(torch.randn(len(real), 100, generator=noise, dtype=torch.float64))
        real_loss = binary_cross_entropy(discriminator(real).flatten(), ones)
        fake_loss = binary_cross_entropy(discriminator(fake.detach()).flatten(), zeros)
        d_loss = recipe.discriminator_scale * (real_loss + fake_loss)
        d_optimizer.zero_grad()
        d_loss.backward()
        if recipe.r1:
            add_r1_gradient(discriminator, real, recipe.r1)
        d_optimizer.step()

        if not recipe.reuse_fake:
            fake = generator(torch.randn(len(real), 100, generator=noise, dtype=torch.float64))
        g_loss = binary_cross_entropy(discriminator(fake).flatten(), ones)
        g_optimizer.zero_grad()
        g_loss.backward()
        g_optimizer.step()
        losses.append((d_loss.item(), g_loss.item()))
        path.append(weights(generator))
    return losses, average_of(path, recipe.half_life) if recipe.half_life else []


def add_r1_gradient(discriminator: nn.Sequential, real: Tensor, gamma: float) -> None:
    """Add the gradient of gamma / 2 * E[|dl/dx|^2], l the logit, for a perceptron with LeakyReLU 0.2, from its formula.

    With W1, W2, w3 the weights and S1, S2 the slopes (1 or 0.2) at an image's hidden units,
    `dl/dx = W1' S1 W2' S2 w3`. The slopes are constant almost everywhere, so autograd is needed only for the product.
    """
    first, second, last = (layer for layer in discriminator if isinstance(layer, nn.Linear))
    with torch.no_grad():
        h1 = first(real.flatten(1))
        s1 = 0.2 + 0.8 * (h1 > 0).double()  # (B, 512)
        s2 = 0.2 + 0.8 * (second(s1 * h1) > 0).double()  # (B, 256)
    slope = ((last.weight * s2) @ second.weight * s1) @ first.weight  # (B, 784)
    (gamma / 2 * (slope**2).sum(1).mean()).backward()


def average_of(path: list[list[Tensor]], half_life: float) -> list[Tensor]:
    """The closed form: weights after update t count (1 - d_t) d_{t+1} ... d_T, the initial ones d_1 ... d_T.

    `d_t = 0.5^(B / h_t)`, the half-life h_t at most all images seen so far, t * B (warmup = 1).
    """
    decays = [0.5 ** (BATCH_SIZE / min(half_life, t * BATCH_SIZE)) for t in range(1, len(path))]
    shares, rest = [], 1.0
    for decay in reversed(decays):
        shares.append((1 - decay) * rest)
        rest *= decay
    shares = [rest, *reversed(shares)]
    assert sum(shares) == pytest.approx(1)
    return [sum(share * w for share, w in zip(shares, ws, strict=True)) for ws in zip(*path, strict=True)]


def test_logit_form_of_the_loss_is_the_textbooks():
    logits = torch.linspace(-8, 8, 33, dtype=torch.float64)
    for target in (torch.zeros(33, dtype=torch.float64), torch.ones(33, dtype=torch.float64)):
        close(binary_cross_entropy_with_logits(logits, target), binary_cross_entropy(logits.sigmoid(), target))


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    for ours, theirs in zip(source.state_dict().values(), target.state_dict().values(), strict=True):
        assert ours.shape == theirs.shape
        theirs.copy_(ours)


def weights(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
