"""Every pair of choices trains, or is refused or warned of in one line."""

import logging
from itertools import combinations, product

import pytest
import torch
from hydra.errors import ConfigCompositionException, InstantiationException
from hydra.utils import instantiate
from test_gan import BATCH_SIZE, LATENT_DIM, SHAPE, descend, small_gan, trained_once
from torch.testing import assert_close

from gan_lightning.callbacks.scalars import Scalars
from gan_lightning.cli.errors import explain
from gan_lightning.files import options
from gan_lightning.losses import Hinge, NonSaturating, Wasserstein
from gan_lightning.models import dcgan
from gan_lightning.noise import derive_seed
from gan_lightning.penalties import R1, R1R2, R2, GradientPenalty, WeightClipping
from gan_lightning.train import build_gan

PENALTIES = [GradientPenalty, R1, R2, R1R2]
GROUPS = ("loss", "penalty", "constraint", "model", "conditioning", "augment")
SWITCHES = ("model.discriminator.spectral_norm", "model.discriminator.minibatch_std", "reuse_fake")
CHOICES = {group: options(group) for group in GROUPS} | {key: ["false", "true"] for key in SWITCHES}
REFUSED = [{"constraint": "weight_clipping", "model.discriminator.spectral_norm": "true"}]
WITHOUT = {"r3gan": SWITCHES[:2]}  # switches that a model does not have
NOT_THERE = [{"model": model, key: "true"} for model, keys in WITHOUT.items() for key in keys]
R3GAN = {"base_channels": 2, "max_channels": 4, "num_blocks": 1, "group_width": 2}
SMALL = {
    "mlp": ["model.generator.hidden=[16]", "model.discriminator.hidden=[16]"],
    "dcgan": ["model.generator.base_channels=4", "model.discriminator.base_channels=4"],
    "resnet": ["model.generator.base_channels=8", "model.discriminator.base_channels=8"],
    "r3gan": [f"model.{name}.{key}={value}" for name in ("generator", "discriminator") for key, value in R3GAN.items()],
}
SHORT = ["data.batch_size=8", "trainer.max_epochs=-1", "trainer.max_steps=2", "++trainer.limit_val_batches=0"]


def pairs(row):
    return {frozenset(pair) for pair in combinations(row.items(), 2)}


def is_refused(row):
    return any(bad.items() <= row.items() for bad in REFUSED + NOT_THERE)


def cover_pairs(choices):
    """Few rows, a choice of each key in each, in which every pair that is not refused stands together.

    Greedy: a row begins with a pair that is missing, and takes key by key the option that adds most of those missing.
    """
    two_keys = combinations(choices, 2)
    every = [dict(zip(keys, pair, strict=True)) for keys in two_keys for pair in product(*map(choices.get, keys))]
    missing = {next(iter(pairs(pair))): pair for pair in every if not is_refused(pair)}
    rows = []
    while missing:
        row = dict(next(iter(missing.values())))
        for key in choices:
            if key not in row:
                allowed = [row | {key: option} for option in choices[key] if not is_refused(row | {key: option})]
                row = max(allowed, key=lambda grown: len(pairs(grown) & missing.keys()))
        for pair in pairs(row):
            missing.pop(pair, None)
        rows.append(row)
    return rows


ROWS = cover_pairs(CHOICES)


def overrides(row):
    return [f"{key}={option}" for key, option in row.items() if key not in WITHOUT.get(row.get("model"), ())]


def fit_quietly(gan, config):
    trainer = instantiate(
        config.trainer, logger=False, callbacks=[Scalars()], enable_progress_bar=False, enable_checkpointing=False
    )
    trainer.fit(gan, instantiate(config.data))
    return trainer


def test_every_pair_of_choices_is_in_a_row_and_none_that_is_refused():
    every = {
        frozenset([(a, x), (b, y)]) for a, b in combinations(CHOICES, 2) for x, y in product(CHOICES[a], CHOICES[b])
    }
    refused = {frozenset(bad.items()) for bad in REFUSED + NOT_THERE}
    assert set().union(*map(pairs, ROWS)) == every - refused
    assert len(ROWS) < 50


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(option for option in row.values()))
def test_pair_of_choices_trains_two_iterations(compose, row):
    config = compose(*overrides(row), *SMALL[row["model"]], *SHORT)
    gan = build_gan(config)
    before = {name: weight.clone() for name, weight in gan.named_parameters() if not name.startswith("ema.")}
    trainer = fit_quietly(gan, config)
    assert trainer.global_step == 2
    for name, tensor in gan.state_dict().items():
        assert tensor.isfinite().all(), name
    moved = {name.partition(".")[0] for name, weight in gan.named_parameters()
             if name in before and not torch.equal(before[name], weight)}  # fmt: skip
    assert moved == {"generator", "discriminator"}
    assert {"loss/discriminator", "loss/generator", "logit/real"} <= trainer.callback_metrics.keys()
    assert ("loss/penalty" in trainer.callback_metrics) == (row["penalty"] != "none")


@pytest.mark.parametrize("penalty", [option for option in options("penalty") if option != "none"])
def test_everything_together_trains_in_bf16(compose, penalty):
    steady = [f"model.discriminator.{name}" for name in ("spectral_norm=true", "minibatch_std=true")]
    config = compose(
        *("loss=relativistic", f"penalty={penalty}", "augment=diffaugment", "trainer.precision=bf16-mixed"),
        *(*steady, *SMALL["mlp"], *SHORT),
    )
    gan = build_gan(config)
    trainer = fit_quietly(gan, config)
    assert all(tensor.isfinite().all() and tensor.dtype == torch.float32 for tensor in gan.state_dict().values())
    assert trainer.callback_metrics["loss/penalty"] > 0


# --- Refused and warned of -----------------------------------------------------------------------------------


def test_switch_that_a_model_does_not_have_is_no_key_of_it(compose):
    for row in NOT_THERE:
        (_, model), (key, _) = row.items()
        with pytest.raises(ConfigCompositionException, match=f"Could not override '{key}'"):
            compose(f"model={model}", f"{key}=true")


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: " ".join(row.values()))
def test_bad_pair_is_refused_in_one_line_that_names_both(compose, row):
    with pytest.raises(InstantiationException) as refused:
        build_gan(compose(*overrides(row)))
    line = explain(refused.value)
    assert "\n" not in line and all(setting in line for setting in overrides(row))


def discriminator(**settings):
    return dcgan.Discriminator(SHAPE, base_channels=4, **{"batch_norm": False} | settings)


def warnings_of(caplog, **settings):
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="gan_lightning"):
        small_gan(**settings)
    assert not any("\n" in line for line in caplog.messages)
    return caplog.messages


def test_bad_pair_is_refused_without_a_config_too():
    with pytest.raises(ValueError, match=r"constraint=weight_clipping.*model\.discriminator\.spectral_norm=false"):
        small_gan(constraint=WeightClipping(), discriminator=discriminator(spectral_norm=True))


@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalty_with_batch_norm_in_the_discriminator_is_warned_of(caplog, penalty):
    (line,) = warnings_of(caplog, penalty=penalty(1.0), discriminator=discriminator(batch_norm=True))
    assert "BatchNorm" in line and "model.discriminator.batch_norm=false" in line and "penalty=none" in line
    assert not warnings_of(caplog, penalty=penalty(1.0), discriminator=discriminator())
    assert not warnings_of(caplog, discriminator=discriminator(batch_norm=True))


def test_what_the_warning_of_batch_norm_names_ends_it(caplog, compose):
    with caplog.at_level(logging.WARNING, logger="gan_lightning"):
        build_gan(compose("model=dcgan", "model.discriminator.batch_norm=true", "model.discriminator.init=dcgan"))
        (line,) = caplog.messages
        typed = [word.rstrip(",") for word in line.split() if word.startswith("model.")]
        build_gan(compose("model=dcgan", *typed))
    assert len(typed) == 2 and len(caplog.messages) == 1


def test_wasserstein_loss_without_a_bound_on_the_slope_is_warned_of(caplog):
    (line,) = warnings_of(caplog, loss=Wasserstein())
    for way in ("penalty=gradient_penalty", "constraint=weight_clipping", "model.discriminator.spectral_norm=true"):
        assert way in line
    for bound in (
        {"penalty": GradientPenalty(10.0)},
        {"constraint": WeightClipping()},
        {"discriminator": discriminator(spectral_norm=True)},
        {"loss": Hinge()},
        {"loss": NonSaturating()},
    ):
        assert not warnings_of(caplog, **{"loss": Wasserstein()} | bound)


def test_wgan_gp_equals_its_paper_written_out(tmp_path):
    """Algorithm 1 of Gulrajani et al. 2017 for one iteration with both turns, plain gradient descent for Adam."""
    gan, G, D, real = trained_once(tmp_path, lr=0.1, seed=5, loss=Wasserstein(), penalty=GradientPenalty(10.0))

    noise = torch.Generator().manual_seed(derive_seed(5, 0))
    z, z_again = (torch.randn(BATCH_SIZE, LATENT_DIM, generator=noise) for _ in range(2))
    u = torch.rand(BATCH_SIZE, 1, generator=torch.Generator().manual_seed(derive_seed(5, 0, 0))).view(-1, 1, 1, 1)
    between = (u * real + (1 - u) * G(z)).detach().requires_grad_()
    (slope,) = torch.autograd.grad(D(between).sum(), between, create_graph=True)
    loss = (D(G(z)) - D(real) + 10 * (slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
    descend(D, loss, lr=0.1)
    descend(G, -D(G(z_again)).mean(), lr=0.1)
    assert_close(gan.discriminator.state_dict(), D.state_dict())
    assert_close(gan.generator.state_dict(), G.state_dict())
