import re

import pytest
import torch
from lightning import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_gan import BATCH_SIZE, BATCHES, fit, small_gan
from torch.testing import assert_close

from gan_lightning.callbacks.saving import Checkpoints
from gan_lightning.callbacks.scalars import Scalars, accuracy, gradient_norm
from gan_lightning.losses import Hinge, LeastSquares, NonSaturating, Relativistic, Wasserstein
from gan_lightning.penalties import R1


def curves(folder):
    """{tag: [(step, value), ...]} of the one event file in a folder."""
    files = list(folder.rglob("events.out.tfevents.*"))
    assert len(files) == 1
    events = EventAccumulator(str(files[0])).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def logged(folder, gan, iterations, every, callbacks=(), **settings):
    fit(
        gan,
        folder,
        iterations,
        callbacks=[*callbacks, Scalars()],
        logger=TensorBoardLogger(folder, name="", version=""),
        log_every_n_steps=every,
        **settings,
    )
    return curves(folder)


class Record(Callback):
    """What each iteration leaves behind, before anything is logged."""

    def __init__(self):
        self.iterations = []

    def on_train_batch_end(self, trainer, gan, outputs, batch, batch_idx):
        squares = {
            name: sum(parameter.grad.square().sum().item() for parameter in getattr(gan, name).parameters())
            for name in ("discriminator", "generator")
        }
        outputs = {name: tensor.detach().clone() for name, tensor in outputs.items()}
        self.iterations.append(outputs | {f"norm_{name}": square**0.5 for name, square in squares.items()})


class BreaksAt(NonSaturating):
    """Adds `poison` to one network's loss from some iteration on."""

    def __init__(self, network, iteration, poison=float("nan")):
        super().__init__()
        self.network, self.iteration, self.poison, self.calls = network, iteration, poison, 0

    def _poison(self, loss, network):
        return loss + self.poison if network == self.network and self.calls >= self.iteration else loss

    def discriminator(self, real_logits, fake_logits):
        self.calls += 1
        return self._poison(super().discriminator(real_logits, fake_logits), "discriminator")

    def generator(self, real_logits, fake_logits):
        return self._poison(super().generator(real_logits, fake_logits), "generator")


def test_tags_are_those_of_the_glossary(tmp_path):
    rows = re.findall(r"^\s*\| (\w+/.*?) \|", Scalars.__doc__, re.MULTILINE)
    glossary = {tag for row in rows for tag in row.split(", ")}
    assert len(glossary) > 10
    assert set(logged(tmp_path, small_gan(penalty=R1(0.3)), iterations=2, every=1)) == glossary


@pytest.mark.parametrize("n_critic", [1, 5])
def test_steps_are_the_iterations_at_multiples_of_the_logging_interval(tmp_path, n_critic):
    scalars = logged(tmp_path, small_gan(n_critic=n_critic), iterations=14, every=3)  # over three epochs
    from_first_turn = {3: [6, 9, 12], 1: [3, 6, 9, 12]}[
        3 if n_critic == 5 else 1
    ]  # G's first turn is iteration n_critic
    for tag, points in scalars.items():
        of_generator = tag in ("loss/generator", "grad_norm/generator")
        assert [step for step, _ in points] == (from_first_turn if of_generator else [3, 6, 9, 12]), tag


def test_stop_between_two_logging_intervals_writes_no_point_twice(tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, gan, *_):
            trainer.should_stop = gan.global_step == 5

    scalars = logged(tmp_path, small_gan(), iterations=6, every=3, callbacks=[Stop()])
    assert [step for step, _ in scalars["loss/discriminator"]] == [3]


def test_values_are_those_of_the_iteration_they_stand_at(tmp_path):
    record = Record()
    gan = small_gan(penalty=R1(0.3))
    scalars = logged(tmp_path, gan, iterations=4, every=2, callbacks=[record])
    for step in (2, 4):
        then = record.iterations[step - 1]
        real_logits, fake_logits = then["real_logits"], then["fake_logits"]
        told_apart = (real_logits > 0).sum() + (fake_logits < 0).sum()
        expected = {
            "loss/discriminator": then["d_loss"],
            "loss/generator": then["g_loss"],
            "loss/penalty": then["penalty"],
            "logit/real": real_logits.mean(),
            "logit/fake": fake_logits.mean(),
            "prob/real": (1 / (1 + (-real_logits).exp())).mean(),
            "prob/fake": (1 / (1 + (-fake_logits).exp())).mean(),
            "accuracy/discriminator": told_apart / (2 * BATCH_SIZE),
            "grad_norm/discriminator": then["norm_discriminator"],
            "grad_norm/generator": then["norm_generator"],
            "lr/discriminator": 2e-4,
            "lr/generator": 2e-4,
            "progress/epoch": step / BATCHES,
        }
        for tag, value in expected.items():
            assert_close(
                dict(scalars[tag])[step], float(value), rtol=1e-5, atol=1e-7, msg=lambda text, tag=tag: f"{tag}: {text}"
            )
    assert scalars["loss/discriminator"][0] != scalars["loss/discriminator"][1]


@pytest.mark.parametrize(
    ("loss", "right"),  # of logits 0.6, 0.4, -1 of real and 0.7, 0.2, -2 of generated images
    [
        (NonSaturating(), 3 / 6),
        (Hinge(), 3 / 6),
        (LeastSquares(), 3 / 6),
        (Wasserstein(), 2 / 3),
        (Relativistic(), 2 / 3),
    ],
)
def test_accuracy_is_by_the_threshold_of_the_loss_or_by_pairs(loss, right):
    real_logits, fake_logits = torch.tensor([0.6, 0.4, -1.0]), torch.tensor([0.7, 0.2, -2.0])
    assert accuracy(loss, real_logits, fake_logits).item() == pytest.approx(right)


def test_threshold_of_least_squares_lies_between_its_targets():
    assert accuracy(LeastSquares(), torch.tensor([0.9, 0.4]), torch.tensor([0.1, 0.4])) == 3 / 4


@pytest.mark.parametrize("loss", [LeastSquares(), Hinge(), Wasserstein(), Relativistic()])
def test_what_is_no_probability_is_not_logged_as_one(tmp_path, loss):
    scalars = logged(tmp_path, small_gan(loss=loss, penalty=R1(0.3)), iterations=1, every=1)
    assert {"logit/real", "logit/fake", "accuracy/discriminator"} <= scalars.keys()
    assert not [tag for tag in scalars if tag.startswith("prob/")]


def test_penalty_is_logged_beside_the_loss_and_only_where_there_is_one(tmp_path):
    without = logged(tmp_path / "without", small_gan(), iterations=1, every=1)
    steep = logged(tmp_path / "with", small_gan(penalty=R1(1000.0)), iterations=1, every=1)
    assert "loss/penalty" not in without
    assert steep["loss/penalty"][0][1] > 10
    assert steep["loss/discriminator"] == without["loss/discriminator"]  # the first iteration: not in it


def test_images_per_second_are_real_images_over_seconds(tmp_path, monkeypatch):
    seconds = iter(range(0, 1000, 2))  # every look at the clock is two seconds after the last
    monkeypatch.setattr("gan_lightning.callbacks.scalars.time.perf_counter", lambda: float(next(seconds)))
    scalars = logged(tmp_path, small_gan(), iterations=6, every=3)
    assert [value for _, value in scalars["progress/images_per_second"]] == [3 * BATCH_SIZE / 2] * 2


def test_gradient_norm_is_the_length_of_all_gradients_together():
    network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
    assert gradient_norm(network) == 0  # before the first backward there are none
    for parameter, value in zip(network.parameters(), (1.0, 2.0, -4.0, 10.0), strict=True):
        parameter.grad = torch.full_like(parameter, value)
    assert_close(gradient_norm(network), torch.tensor(11.0))


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("network", ["discriminator", "generator"])
def test_loss_that_is_not_finite_stops_the_run_at_the_next_logging_interval(tmp_path, network, poison):
    gan = small_gan(loss=BreaksAt(network, iteration=2, poison=poison))
    with pytest.raises(FloatingPointError, match=rf"loss/{network} is {poison} at iteration 4; .*: none yet; .*lr"):
        fit(gan, tmp_path, 10, callbacks=[Scalars()], log_every_n_steps=4)
    assert gan.loss.calls == 4


def test_penalty_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(FloatingPointError, match="loss/penalty is inf at iteration 1"):
        fit(small_gan(penalty=R1(float("inf"))), tmp_path, callbacks=[Scalars()])


def test_broken_run_keeps_and_names_the_last_good_checkpoint(tmp_path):
    """Its losses break after the first epoch, and are not logged before the second checkpoint is due."""
    checkpoint = Checkpoints()
    gan = small_gan(loss=BreaksAt("generator", iteration=BATCHES + 1))
    file = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(FloatingPointError, match=f"loss/generator is nan.*last good checkpoint: {file}; "):
        fit(
            gan,
            tmp_path,
            50,
            callbacks=[Scalars(), checkpoint],
            enable_checkpointing=True,
            log_every_n_steps=5 * BATCHES,
        )
    assert gan.loss.calls == 2 * BATCHES
    saved = torch.load(file, weights_only=True)
    assert saved["global_step"] == BATCHES
    assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values())


def test_logging_can_be_switched_off(tmp_path):
    """0 is Lightning's word for never; what is not finite is still found before a checkpoint."""
    assert logged(tmp_path, small_gan(), iterations=2, every=0) == {}
