import math

import pytest
import torch
from hydra.errors import InstantiationException
from lightning import Callback
from test_gan import fit, small_gan, weights

from gan_lightning.cli.errors import explain
from gan_lightning.penalties import R1
from gan_lightning.schedules import Constant, Cosine, Linear


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Constant(), [1, 1, 1, 1]),
        (Constant(warmup=3), [0.25, 0.5, 0.75, 1]),
        (Linear(), [1, 0.75, 0.5, 0.25]),
        (Linear(warmup=2), [1 / 3, 2 / 3, 1, 0.5]),
        (Cosine(), [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        (Cosine(warmup=2), [1 / 3, 2 / 3, 1, 0.5]),
        (Linear(final=0.2), [1, 0.8, 0.6, 0.4]),
        (Cosine(final=0.1), [1, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2, 0.55, 0.1 + 0.9 * (1 - math.sqrt(0.5)) / 2]),
        (Linear(final=2.0), [1, 1.25, 1.5, 1.75]),
        (Linear(until=2), [1, 0.5, 0, 0]),
        (Linear(until=2, final=0.2), [1, 0.6, 0.2, 0.2]),
        (Linear(until=3, warmup=1), [0.5, 1, 0.5, 0]),
        (Linear(until=8), [1, 0.875, 0.75, 0.625]),
        (Cosine(until=2, final=0.1), [1, 0.55, 0.1, 0.1]),
    ],
)
def test_factors_of_four_iterations(schedule, factors):
    assert [schedule(iteration, 4) for iteration in range(4)] == pytest.approx(factors)


@pytest.mark.parametrize("schedule", [Linear, Cosine])
def test_with_an_end_of_its_own_a_schedule_does_not_look_at_the_runs(schedule):
    """R3GAN's burn-in is a number of images, whatever is trained after it."""
    own = schedule(until=10, final=0.1)
    for iteration in (0, 3, 9, 10, 11, 1000):
        assert own(iteration, 20) == own(iteration, 4000) == own(iteration, math.inf)
    assert own(10, math.inf) == own(10**9, math.inf) == 0.1


@pytest.mark.parametrize("schedule", [Constant, Linear, Cosine])
def test_negative_warmup_is_refused_by_its_key(schedule):
    with pytest.raises(ValueError, match=r"^warmup=-1 must be 0 or more"):
        schedule(warmup=-1)


@pytest.mark.parametrize("schedule", [Linear, Cosine])
def test_negative_final_factor_is_refused_by_its_key(schedule):
    with pytest.raises(ValueError, match=r"^final=-0\.1 must be 0 or more"):
        schedule(final=-0.1)


@pytest.mark.parametrize("schedule", [Linear, Cosine])
@pytest.mark.parametrize(("until", "warmup"), [(0, 0), (-5, 0), (3, 3)])
def test_end_that_is_not_after_the_warmup_is_refused_by_its_key(schedule, until, warmup):
    with pytest.raises(ValueError, match=rf"^until={until} must be more than warmup={warmup} iterations, or null"):
        schedule(until=until, warmup=warmup)


@pytest.mark.parametrize("schedule", [Linear, Cosine])
def test_a_schedule_that_falls_needs_an_end_after_its_warmup(schedule):
    with pytest.raises(ValueError, match=r"^until=null: a schedule that falls needs an end; set it"):
        schedule()(0, math.inf)
    with pytest.raises(ValueError, match=r"^warmup=4 must be less than the run's 4 iterations"):
        schedule(warmup=4)(0, 4)


KEYS = [
    ("schedule", "schedule=cosine"),
    ("penalty.schedule", "+schedule@penalty.schedule=cosine"),
    ("optimizer.beta2_schedule", "+schedule@optimizer.beta2_schedule=cosine"),
]


@pytest.mark.parametrize(("key", "override"), KEYS)
def test_argument_that_makes_no_sense_is_refused_by_the_key_that_was_typed(compose, key, override):
    from gan_lightning.train import build_gan

    for argument in "final=-0.5", "warmup=-1", "until=-3":
        with pytest.raises(InstantiationException) as refused:
            build_gan(compose(override, f"{key}.{argument}"))
        assert explain(refused.value).startswith(f"{key}.{argument} must be ")


@pytest.mark.parametrize("key", [key for key, _ in KEYS])
def test_schedule_that_does_not_fit_the_run_is_refused_by_its_key(tmp_path, key):
    schedule = Cosine(warmup=4, final=0.1)
    settings = {
        "schedule": {"schedule": schedule},
        "penalty.schedule": {"penalty": R1(weight=1.0, schedule=schedule)},
        "optimizer.beta2_schedule": {"beta2_schedule": schedule},
    }[key]
    with pytest.raises(ValueError, match=rf"^{key}\.warmup=4 must be less than the run's 3 iterations"):
        fit(small_gan(**settings), tmp_path, 3)


@pytest.mark.parametrize("key", [key for key, _ in KEYS[1:]])
def test_name_of_a_schedule_in_place_of_one_says_how_it_is_typed(compose, key):
    from gan_lightning.cli.checks import check

    with pytest.raises(ValueError, match=rf"^{key}=cosine: .* is typed as \+schedule@{key}=cosine$"):
        check(compose(f"{key}=cosine"))


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, *_):
        self.seen.append([optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers])


@pytest.mark.parametrize("n_critic", [1, 5])
def test_both_rates_are_set_in_every_iteration_whoever_has_a_turn(tmp_path, n_critic):
    rates = Rates()
    optimizers = {
        "discriminator_optimizer": lambda weights: torch.optim.SGD(weights, lr=0.1),
        "generator_optimizer": lambda weights: torch.optim.SGD(weights, lr=0.2),
    }
    fit(small_gan(schedule=Linear(), n_critic=n_critic, **optimizers), tmp_path, 10, callbacks=[rates])
    assert rates.seen == [pytest.approx([0.1 * (1 - t / 10), 0.2 * (1 - t / 10)]) for t in range(10)]


# --- beta2 -----------------------------------------------------------------------------------------------------------


class Betas(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, *_):
        self.seen.append([optimizer.param_groups[0]["betas"] for optimizer in trainer.optimizers])


@pytest.mark.parametrize("n_critic", [1, 5])
def test_both_optimizers_have_the_scheduled_beta2_in_every_iteration(tmp_path, n_critic):
    """Along half a cosine from 0.9 to 0.99 in four iterations, R3GAN's burn-in, and then constant."""
    betas, half = Betas(), math.sqrt(0.5)
    optimizers = {
        "discriminator_optimizer": lambda weights: torch.optim.Adam(weights, betas=(0.0, 0.9)),
        "generator_optimizer": lambda weights: torch.optim.AdamW(weights, betas=(0.5, 0.8)),
    }
    gan = small_gan(beta2_schedule=Cosine(final=0.1, until=4), n_critic=n_critic, **optimizers)
    fit(gan, tmp_path, 6, callbacks=[betas])
    rises = [0.9, 0.945 - 0.045 * half, 0.945, 0.945 + 0.045 * half, 0.99, 0.99]
    for t, ((d_beta1, d_beta2), (g_beta1, g_beta2)) in enumerate(betas.seen):
        assert (d_beta1, g_beta1) == (0.0, 0.5)
        assert d_beta2 == pytest.approx(rises[t]) and 1 - g_beta2 == pytest.approx(2 * (1 - rises[t]))


def test_a_step_is_taken_with_the_scheduled_beta2(tmp_path):
    """Adam's average of squared gradients, `v = beta2 v + (1 - beta2) g^2`, by hand over three iterations."""
    gradients = []

    class Gradients(Callback):
        def on_train_batch_end(self, trainer, gan, *_):
            gradients.append(next(gan.discriminator.parameters()).grad.clone())

    gan = small_gan(beta2_schedule=Linear(final=0.1, until=2), discriminator_optimizer=lambda weights: torch.optim.Adam(
        weights, betas=(0.0, 0.9)))  # fmt: skip
    trainer = fit(gan, tmp_path, 3, callbacks=[Gradients()])
    average = torch.zeros_like(gradients[0])
    for beta2, gradient in zip((0.9, 0.945, 0.99), gradients, strict=True):
        average = beta2 * average + (1 - beta2) * gradient.square()
    found = trainer.optimizers[0].state[next(gan.discriminator.parameters())]["exp_avg_sq"]
    torch.testing.assert_close(found, average)


def test_beta2_without_a_schedule_stays(tmp_path):
    betas = Betas()
    trainer = fit(small_gan(), tmp_path, 2, callbacks=[betas])
    assert betas.seen == [[(0.5, 0.999)] * 2] * 2
    assert "initial_betas" not in trainer.optimizers[0].param_groups[0]


def test_schedule_of_beta2_is_set_from_the_command_line(compose):
    from gan_lightning.train import build_gan

    schedule = build_gan(
        compose("+schedule@optimizer.beta2_schedule=cosine", "optimizer.beta2_schedule={final: 0.1, until: 50}")
    ).beta2_schedule
    assert isinstance(schedule, Cosine) and (schedule.final, schedule.until) == (0.1, 50)
    assert build_gan(compose()).beta2_schedule is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["+schedule@optimizer.beta2_schedule=cosine"],
            r"with optimizer\.discriminator\.betas\[1\]=0\.99 .* end at 1, ",
        ),
        (
            ["+schedule@optimizer.beta2_schedule=linear", "optimizer.beta2_schedule.final=200"],
            r"would end at -1, .*0\.1",
        ),
        (
            ["optimizer=rmsprop", "+schedule@optimizer.beta2_schedule=cosine"],
            "optimizer.discriminator has no beta2; use ",
        ),
    ],
)
def test_schedule_of_beta2_that_makes_no_sense_is_refused_in_one_line(compose, overrides, message):
    from gan_lightning.train import build_gan

    with pytest.raises(ValueError, match=rf"^optimizer\.beta2_schedule.*{message}") as refused:
        build_gan(compose(*overrides)).configure_optimizers()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("limit", [1e-3, 1e3])
def test_gradients_longer_than_the_limit_are_cut_down_to_it_others_left(tmp_path, limit):
    """With SGD of rate 1 a step is as long as the gradient that made it."""
    steps = {}

    class Steps(Callback):
        def on_train_batch_start(self, trainer, gan, *_):
            self.before = {name: weights(getattr(gan, name)) for name in ("discriminator", "generator")}

        def on_train_batch_end(self, trainer, gan, *_):
            for name, before in self.before.items():
                moved = [p.detach() - before[key] for key, p in getattr(gan, name).named_parameters()]
                steps[name] = torch.cat([difference.flatten() for difference in moved]).norm().item()

    settings = {
        f"{name}_optimizer": lambda weights: torch.optim.SGD(weights, lr=1.0) for name in ("discriminator", "generator")
    }
    fit(small_gan(max_gradient_norm=limit, **settings), tmp_path, 1, callbacks=[Steps()])
    for length in steps.values():
        assert length == pytest.approx(limit, rel=1e-2) if limit < 1 else 0 < length < limit


def test_a_limit_that_is_not_positive_is_refused_by_its_key():
    with pytest.raises(ValueError, match=r"^max_gradient_norm=0 must be positive"):
        small_gan(max_gradient_norm=0)


def test_lightnings_own_key_for_clipping_names_ours(compose):
    from gan_lightning.cli.checks import check

    with pytest.raises(ValueError, match=r"trainer\.gradient_clip_val=0\.5.*use max_gradient_norm=0\.5"):
        check(compose("+trainer.gradient_clip_val=0.5"))
