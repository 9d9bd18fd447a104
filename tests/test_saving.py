"""When last.ckpt and best.ckpt are written. That they resume exactly: tests/test_resume.py."""

import pytest
import torch
from lightning import Callback
from test_gan import BATCHES, fit, small_gan

from gan_lightning.callbacks.saving import Checkpoints
from gan_lightning.runs.place import set_place


class Scores(Callback):
    """Says that the evaluation after each epoch found these FIDs."""

    def __init__(self, *fids):
        self.fids = list(fids)

    def on_train_epoch_end(self, trainer, gan):
        if self.fids:
            trainer.callback_metrics["metrics/fid"] = torch.tensor(self.fids.pop(0))
            trainer.checkpoint_callback.on_validation_end(trainer, gan)


@pytest.fixture
def saves(monkeypatch):
    """(iteration, name) of every save."""
    seen, save = [], Checkpoints.save

    def watched(self, trainer, name):
        seen.append((trainer.global_step, name))
        save(self, trainer, name)

    monkeypatch.setattr(Checkpoints, "save", watched)
    return seen


def run(folder, iterations, *callbacks, n_critic=1, **settings):
    checkpoints = Checkpoints(**settings)
    fit(
        small_gan(n_critic=n_critic), folder, iterations, callbacks=[*callbacks, checkpoints], enable_checkpointing=True
    )
    return checkpoints


@pytest.mark.parametrize("n_critic", [1, 5])
def test_last_is_saved_after_every_epoch_and_where_the_run_stops(tmp_path, saves, n_critic):
    checkpoints = run(tmp_path, 2 * BATCHES + 3, n_critic=n_critic)
    assert saves == [(BATCHES, "last"), (2 * BATCHES, "last"), (2 * BATCHES + 3, "last")]
    assert checkpoints.latest == tmp_path / "checkpoints" / "last.ckpt"
    assert torch.load(checkpoints.latest, weights_only=True)["global_step"] == 2 * BATCHES + 3


@pytest.mark.parametrize("n_critic", [1, 5])
def test_within_an_epoch_it_is_saved_every_so_many_iterations_when_asked_for(tmp_path, saves, n_critic):
    run(tmp_path, 2 * BATCHES, every_n_steps=4, n_critic=n_critic)
    assert [iteration for iteration, _ in saves] == [4, 6, 8, 12]  # 12 is an epoch's end: once


def test_best_is_saved_where_the_score_is_less_than_ever_before(tmp_path, saves):
    checkpoints = run(tmp_path, 5 * BATCHES, Scores(9.0, 4.0, 5.0, 4.0, 3.0))
    assert [iteration // BATCHES for iteration, name in saves if name == "best"] == [1, 2, 5]
    assert checkpoints.best == 3
    assert torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["global_step"] == 5 * BATCHES


@pytest.mark.parametrize(
    ("monitor", "best"), [("metrics/recall", 0.9), ("metrics/coverage", 0.9), ("metrics/kid", 0.1), ("loss/mine", 0.1)]
)
def test_best_is_the_largest_of_a_score_of_which_more_is_better(tmp_path, saves, monitor, best):
    values = [0.5, 0.9, 0.1, 0.7]

    class Says(Callback):
        def on_train_epoch_end(self, trainer, gan):
            trainer.callback_metrics[monitor] = torch.tensor(values.pop(0))
            trainer.checkpoint_callback.on_validation_end(trainer, gan)

    checkpoints = run(tmp_path, 4 * BATCHES, Says(), monitor=monitor)
    assert checkpoints.best == pytest.approx(best)
    assert [iteration // BATCHES for iteration, name in saves if name == "best"] == ([1, 2] if best > 0.5 else [1, 3])


def test_nothing_in_a_checkpoint_is_a_path(tmp_path):
    run(tmp_path, 2)
    content = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    assert str(tmp_path).encode() not in content


def test_no_half_written_file_is_left_behind(tmp_path):
    run(tmp_path, 2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


def test_zero_steps_between_saves_are_refused_by_their_key():
    with pytest.raises(ValueError, match=r"^every_n_steps=0 must be 1 or more"):
        Checkpoints(every_n_steps=0)


@pytest.mark.parametrize(
    ("iteration", "epochs_begun", "epochs_done", "within"), [(0, 0, 0, 0), (5, 1, 0, 5), (12, 2, 2, 0)]
)
def test_place_is_between_two_iterations(iteration, epochs_begun, epochs_done, within):
    loop = {"epoch_loop.batch_progress": {}, "epoch_loop.state_dict": {}}
    set_place(loop, iteration, num_batches=6)
    for count in ("total", "current"):
        epochs = loop["epoch_progress"][count]
        assert (epochs["ready"], epochs["started"]) == (epochs_begun, epochs_begun)
        assert (epochs["processed"], epochs["completed"]) == (epochs_done, epochs_done)
    assert set(loop["epoch_loop.batch_progress"]["total"].values()) == {iteration}
    assert set(loop["epoch_loop.batch_progress"]["current"].values()) == {within}


def test_weights_that_are_not_finite_never_replace_a_good_checkpoint(tmp_path):
    """A step may break the weights whose losses were finite: it shows in the next iteration's only."""

    class Break(Callback):
        def on_train_batch_end(self, trainer, gan, *_):
            if gan.global_step == BATCHES + 2:
                next(gan.generator.parameters()).data[0] = float("nan")

    with pytest.raises(FloatingPointError, match=rf"a weight is NaN.*last good checkpoint: {tmp_path}"):
        run(tmp_path, 2 * BATCHES, Break())
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == BATCHES


def test_a_score_that_there_is_not_is_named_beside_those_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"callbacks\.checkpoint\.monitor=metrics/fidd is not a score.*metrics/fid"):
        run(tmp_path, BATCHES, Scores(1.0), monitor="metrics/fidd")


def test_the_best_of_another_score_is_forgotten():
    fid, kid = Checkpoints(), Checkpoints(monitor="metrics/kid")
    kid.best = 0.02
    fid.load_state_dict(kid.state_dict())
    assert fid.best is None
