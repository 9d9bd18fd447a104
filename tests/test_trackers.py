"""Trackers of one's own, and what all of them are told."""

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from test_gan import BATCHES, fit, small_gan

from gan_lightning.callbacks.dashboard import Dashboard
from gan_lightning.callbacks.pictures import Pictures
from gan_lightning.callbacks.scalars import Scalars
from gan_lightning.trackers.csv import CSV
from gan_lightning.trackers.tensorboard import TensorBoard
from gan_lightning.trackers.tracker import Tracker
from gan_lightning.train import build_trainer

CALLBACKS = (Scalars, Dashboard)


class Notebook(CSVLogger, Tracker):
    """A tracker of somebody's own, which keeps what it is shown."""

    def __init__(self, save_dir="."):
        super().__init__(save_dir)
        self.shown = []

    def go_on(self, iteration):
        self.shown.append(("go_on", iteration))

    def show_picture(self, tag, picture, step):
        assert picture.dtype == torch.uint8 and picture.dim() == 3
        self.shown.append((tag, step))

    def show_text(self, tag, markdown, step=0):
        self.shown.append((tag, step))

    def show_result(self, scores):
        self.shown.append(("result", *sorted(scores)))


class Silent(CSVLogger, Tracker):
    """A tracker that shows numbers alone."""


def test_a_tracker_of_ones_own_gets_pictures_texts_and_the_result(tmp_path):
    notebook = Notebook(tmp_path)
    notebook.describe({"seed": 1}, {"seed": 1})
    callbacks = [*(callback() for callback in CALLBACKS), Pictures(num_images=4)]
    fit(small_gan(), tmp_path, BATCHES, callbacks=callbacks, logger=[notebook, TensorBoard(tmp_path / "board")])
    pictures = [("samples/fixed", 0), ("samples/fixed", BATCHES), ("samples/real", 0)]
    assert set(pictures) <= set(notebook.shown)
    assert {("config", 0), ("generator", 0), ("discriminator", 0)} <= set(notebook.shown)
    assert notebook.shown[-1] == ("result", "loss/discriminator", "loss/generator")


def test_a_tracker_may_leave_out_what_it_cannot_show(tmp_path):
    silent = Silent(tmp_path)
    silent.describe({}, {})
    fit(small_gan(), tmp_path, 1, callbacks=[Dashboard(), Pictures(num_images=4)], logger=silent)


def test_trackers_are_told_the_settings_and_where_a_resumed_run_goes_on(compose):
    config = compose("logger=none", "+logger.mine._target_=test_trackers.Notebook")
    trainer = build_trainer(config, resumed_at=7)
    (notebook,) = trainer.loggers
    assert notebook.shown == [("go_on", 7)]
    assert notebook.settings["optimizer.generator.lr"] == notebook.hyperparameters["optimizer.generator.lr"] == 2.11e-3
    assert notebook.hyperparameters["model"] == "mlp" and "trainer.log_every_n_steps" not in notebook.hyperparameters


@pytest.mark.parametrize(("tracker", "files"), [(TensorBoard, "events.out.tfevents.*"), (CSV, "metrics.csv")])
def test_the_curves_of_a_resumed_run_lose_nothing(tmp_path, tracker, files):
    for iteration in 0, 4:
        logger = tracker(tmp_path, name="", version="")
        if iteration:
            logger.go_on(iteration)
        logger.log_metrics({"loss/generator": 1.0}, step=iteration + 1)
        logger.save()
        logger.finalize("success")
    assert len(list(tmp_path.rglob(files))) == 2
