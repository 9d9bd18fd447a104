import logging
import re
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import OmegaConf
from test_evaluation import SHADES, Shades, curves, evaluated
from test_gan import BATCH_SIZE, BATCHES, SHAPE, fit, small_gan
from torch import nn

from gan_lightning.callbacks.alarms import ADVICE, PENALTY, Alarms, advice
from gan_lightning.callbacks.scalars import Scalars
from gan_lightning.data import ImageDataModule
from gan_lightning.images import normalize
from gan_lightning.penalties import R1


class Painter(nn.Module):
    """Images of some grey levels, chosen by the noise, with a little noise on them; of one shade, or all alike."""

    def __init__(self, levels, noise=8.0):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))
        self.levels, self.noise = torch.tensor(levels), noise

    def forward(self, z, labels=None):
        which = (z[:, 0].erf() + 1).mul(len(self.levels) / 2).long().clamp(0, len(self.levels) - 1)
        level = self.levels[which].view(-1, 1, 1, 1)
        texture = self.noise * (z @ torch.randn(z.shape[1], 64, generator=torch.Generator().manual_seed(0)))
        return (level + texture.view(-1, *SHAPE)) / 127.5 - 1 + self.offset


class Copier(nn.Module):
    """Returns training images, each as often as any other, chosen by the noise."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))
        self.images = normalize(Shades().read(None, "train")[0])

    def forward(self, z, labels=None):
        which = (z[:, 0].div(2**0.5).erf() + 1).mul(len(self.images) / 2).long().clamp(0, len(self.images) - 1)
        return self.images[which] + self.offset


class Won(nn.Module):
    """Knows real images by their brightness: far above 0 for white ones, far below for black ones."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, images, labels=None):
        return self.scale * images.flatten(1).mean(dim=1)


def frozen(**networks):
    """A GAN that does not learn."""
    still = {f"{name}_optimizer": lambda p: torch.optim.SGD(p, lr=0.0) for name in ("generator", "discriminator")}
    return small_gan(**networks, **still)


def warned(caplog):
    return [record.message for record in caplog.records if record.message.startswith("alarm: ")]


@pytest.fixture(autouse=True)
def hear(caplog):
    caplog.set_level(logging.WARNING, logger="gan_lightning")


# --- At evaluations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("painter", "expected"),
    [
        (Painter(SHADES), []),
        (Painter(SHADES[1:2]), ["mode_collapse"]),
        (Painter(SHADES[1:2], noise=0.0), ["mode_collapse", "dead_generator"]),
        (Painter([SHADES[0]] * 8 + list(SHADES[1:])), ["mode_collapse"]),  # none is missing, one is everywhere
        (Copier(), ["memorisation"]),
    ],
    ids=["all classes", "one class", "constant", "over-represented class", "training images"],
)
def test_alarm_is_raised_for_a_generator_that_has_failed(tmp_path, caplog, painter, expected):
    logger = TensorBoardLogger(tmp_path, name="", version="")
    evaluated(frozen(generator=painter), tmp_path, callbacks=[Alarms()], logger=logger)
    assert warned(caplog) == [
        f"alarm: {name.replace('_', ' ')} at iteration 6; try {ADVICE[name].replace(PENALTY, 'penalty=r1')}"
        for name in expected
    ]
    scalars, _ = curves(tmp_path)
    for name in "mode_collapse", "dead_generator", "memorisation":
        assert scalars[f"alarm/{name}"] == [(6, float(name in expected))]


def test_alarm_of_a_later_evaluation_is_not_said_twice(tmp_path, caplog):
    evaluated(frozen(generator=Painter(SHADES[:1])), tmp_path, epochs=3, callbacks=[Alarms()])
    assert len(warned(caplog)) == 1


# --- While training ------------------------------------------------------------------------------------------

HEALTHY = {"prob/real": 0.6, "prob/fake": 0.4, "grad_norm/discriminator": 1.0, "grad_norm/generator": 1.0}
WON = HEALTHY | {"prob/real": 0.999, "prob/fake": 0.001}


def watch(states, patience, every=1, resumed_after=None):
    """Let Alarms see one state for each iteration; returns what it logs, {tag: [value, ...]}."""
    alarms, logged = Alarms(patience), {}

    def log_metrics(values, step):
        for tag, value in values.items():
            logged.setdefault(tag, []).append(value)

    gan = SimpleNamespace(global_step=0, penalty=R1(0.3))
    logger = SimpleNamespace(log_metrics=log_metrics, save=lambda: None)
    trainer = SimpleNamespace(log_every_n_steps=every, loggers=[logger])
    for state in states:
        gan.global_step += 1
        trainer.global_step = gan.global_step
        trainer.callback_metrics = {tag: torch.tensor(value) for tag, value in state.items()}
        alarms.on_train_batch_end(trainer, gan)
        if gan.global_step == resumed_after:  # by another process
            state, alarms = alarms.state_dict(), Alarms(patience)
            alarms.load_state_dict(state)
    return logged


def test_a_discriminator_that_has_won_for_long_is_said_once(caplog):
    logged = watch([WON] * 8, patience=3)
    assert logged["alarm/discriminator_won"] == [0, 0, 0, 1, 1, 1, 1, 1]
    assert warned(caplog) == [f"alarm: discriminator won at iteration 4; try {ADVICE['discriminator_won']}"]


@pytest.mark.parametrize("resumed_after", [2, 5])
def test_a_resumed_run_counts_on_and_says_no_alarm_twice(caplog, resumed_after):
    logged = watch([WON] * 8, patience=3, resumed_after=resumed_after)
    assert logged["alarm/discriminator_won"] == [0, 0, 0, 1, 1, 1, 1, 1]
    assert len(warned(caplog)) == 1


def test_an_alarm_is_said_again_after_it_ended(caplog):
    logged = watch([WON] * 4 + [HEALTHY] + [WON] * 4, patience=2)
    assert logged["alarm/discriminator_won"] == [0, 0, 1, 1, 0, 0, 0, 1, 1]
    assert [line.partition(";")[0] for line in warned(caplog)] == [
        f"alarm: discriminator won at iteration {iteration}" for iteration in (3, 8)
    ]


def test_patience_starts_anew_when_the_state_is_interrupted(caplog):
    watch(([WON] * 3 + [HEALTHY]) * 5, patience=3)
    assert not warned(caplog)


@pytest.mark.parametrize("still_undecided", [{"prob/real": 0.9}, {"prob/fake": 0.1}])
def test_a_discriminator_wins_only_if_it_is_sure_of_both_kinds(caplog, still_undecided):
    watch([WON | still_undecided] * 5, patience=2)
    assert not warned(caplog)


@pytest.mark.parametrize("network", ["discriminator", "generator"])
@pytest.mark.parametrize(
    ("norm", "alarm"), [(1e-8, "vanishing_gradient"), (0.0, "vanishing_gradient"), (1e5, "exploding_gradient")]
)
def test_a_gradient_out_of_range_for_long_is_said(caplog, network, norm, alarm):
    logged = watch([HEALTHY | {f"grad_norm/{network}": norm}] * 5, patience=2)
    assert logged[f"alarm/{alarm}"] == [0, 0, 1, 1, 1]
    (line,) = warned(caplog)
    assert line == f"alarm: {alarm.replace('_', ' ')} at iteration 3; try {ADVICE[alarm]}"


def test_a_healthy_run_raises_nothing_and_logs_zeros(caplog):
    logged = watch([HEALTHY] * 3, patience=1)
    assert not warned(caplog)
    assert {tag: set(values) for tag, values in logged.items() if tag.startswith("alarm/")} == {
        f"alarm/{name}": {0.0} for name in ("discriminator_won", "vanishing_gradient", "exploding_gradient")
    }


def test_without_probabilities_nobody_says_that_the_discriminator_has_won(caplog):
    state = {tag: value for tag, value in WON.items() if not tag.startswith("prob/")}
    logged = watch([state | {"grad_norm/generator": 1e5}] * 4, patience=2)
    assert "alarm/discriminator_won" not in logged
    assert logged["alarm/exploding_gradient"] == [0, 0, 1, 1]  # the others are on


def test_alarms_look_at_logging_intervals_only():
    assert len(watch([WON] * 9, patience=3, every=4)["alarm/discriminator_won"]) == 2


def test_generator_without_a_turn_yet_is_no_alarm(caplog):
    state = {tag: value for tag, value in HEALTHY.items() if tag != "grad_norm/generator"}
    watch([state] * 3, patience=1)
    assert not warned(caplog)


def test_patience_is_in_iterations_of_a_real_run(tmp_path, caplog):
    white = torch.full((BATCH_SIZE * BATCHES, *SHAPE), 255, dtype=torch.uint8)
    data = ImageDataModule.from_tensors(white, batch_size=BATCH_SIZE, num_val_samples=1)
    gan = frozen(generator=Painter([0], noise=0.0), discriminator=Won())
    fit(
        gan,
        tmp_path,
        12,
        data=data,
        callbacks=[Scalars(), Alarms(4)],
        logger=TensorBoardLogger(tmp_path, name="", version=""),
    )
    won = curves(tmp_path)[0]["alarm/discriminator_won"]
    assert won == [(iteration, float(iteration >= 5)) for iteration in range(1, 13)]
    assert any(line.startswith("alarm: discriminator won at iteration 5;") for line in warned(caplog))


def test_every_alarm_has_advice():
    rows = {name.strip() for line in Alarms.__doc__.splitlines() if line.strip().startswith("| ")
            for name in line.strip().split("|")[1].split(",")} - {"alarm", "---"}  # fmt: skip
    assert rows == set(ADVICE)


@pytest.mark.parametrize("penalty", ["r1", "none"])
@pytest.mark.parametrize("alarm", ADVICE)
def test_advice_names_keys_that_there_are_and_nothing_that_is_so_already(compose, alarm, penalty):
    from gan_lightning.files import groups
    from gan_lightning.train import build_gan

    config = compose(f"penalty={penalty}", small=False)
    line = advice(alarm, build_gan(config))
    settings = re.findall(r"[\w.]+=[\w.]+", line)
    keys = re.findall(r"\b(?:seed|[a-z_]+(?:\.[a-z_]+)+)\b(?!=)", line)
    assert settings or keys
    for setting in settings:
        key, _, value = setting.partition("=")
        changed = compose(f"penalty={penalty}", setting, small=False)
        assert changed != config, f"{setting} is so already"
        assert key in groups() or str(OmegaConf.select(changed, key)) == value
    for key in keys:
        assert OmegaConf.select(config, key, throw_on_missing=True) is not None, key


def test_advice_against_long_gradients_is_to_cut_them():
    assert "max_gradient_norm=" in ADVICE["exploding_gradient"]
