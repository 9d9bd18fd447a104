import math

import pytest
import torch
from lightning import Callback
from test_gan import fit, small_gan, weights

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
    ],
)
def test_factors_of_four_iterations(schedule, factors):
    assert [schedule(iteration, 4) for iteration in range(4)] == pytest.approx(factors)


@pytest.mark.parametrize("schedule", [Constant, Linear, Cosine])
def test_negative_warmup_is_refused_by_its_key(schedule):
    with pytest.raises(ValueError, match=r"^schedule\.warmup=-1 must be 0 or more"):
        schedule(warmup=-1)


@pytest.mark.parametrize("schedule", [Linear, Cosine])
def test_negative_final_factor_is_refused_by_its_key(schedule):
    with pytest.raises(ValueError, match=r"^schedule\.final=-0\.1 must be 0 or more"):
        schedule(final=-0.1)


@pytest.mark.parametrize("schedule", [Linear, Cosine])
def test_a_schedule_that_falls_needs_an_end_after_its_warmup(schedule):
    with pytest.raises(ValueError, match=r"set trainer\.max_epochs"):
        schedule()(0, math.inf)
    with pytest.raises(ValueError, match=r"schedule\.warmup=4 must be less than the run's 4 iterations"):
        schedule(warmup=4)(0, 4)


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
    from gan_lightning.train import build_trainer

    with pytest.raises(ValueError, match=r"trainer\.gradient_clip_val=0\.5.*use max_gradient_norm=0\.5"):
        build_trainer(compose("+trainer.gradient_clip_val=0.5"))
