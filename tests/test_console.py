import logging
import re
import sys

import pytest
from lightning import Callback
from test_gan import BATCH_SIZE, BATCHES, fit, small_gan

from gan_lightning.callbacks.console import Console, ProgressBar
from gan_lightning.callbacks.network_table import markdown_table, network_rows
from gan_lightning.callbacks.scalars import Scalars
from gan_lightning.gan import GAN
from gan_lightning.models import dcgan, mlp
from gan_lightning.terminal import WIDTH, format_seconds

LOGGER = "gan_lightning.callbacks.console"


def said(caplog, level=logging.INFO):
    return [record.getMessage() for record in caplog.records if record.name == LOGGER and record.levelno >= level]


def lines(caplog, level=logging.INFO):
    return [line for line in said(caplog, level) if line.startswith("epoch ")]


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)


def run(folder, iterations, every, **settings):
    fit(
        small_gan(),
        folder,
        iterations,
        callbacks=[Scalars(), Console(every_n_steps=every)],
        log_every_n_steps=2,
        **settings,
    )


def test_line_every_n_iterations_where_there_is_no_terminal(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, LOGGER)
    run(tmp_path, 2 * BATCHES, every=4)
    assert [line.split(":")[0] for line in lines(caplog)] == [
        "epoch 1, iteration 4 of 12",
        "epoch 2, iteration 8 of 12",
        "epoch 2, iteration 12 of 12",
    ]
    for line in lines(caplog):
        assert "D loss " in line and "G loss " in line and line.endswith(" left")
        assert "\n" not in line


def test_line_before_any_loss_is_logged_has_the_time_alone(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, LOGGER)
    fit(small_gan(), tmp_path, 2, callbacks=[Console(every_n_steps=1)])
    assert all(re.fullmatch(r"epoch 1, iteration \d of 2: \d+ s left", line) for line in lines(caplog))


def test_lines_stay_out_of_a_terminal_which_has_the_bar_but_reach_the_log_file(tmp_path, caplog, terminal):
    caplog.set_level(logging.DEBUG, LOGGER)
    run(tmp_path, 4, every=2)
    assert lines(caplog) == []  # the console shows INFO
    assert len(lines(caplog, logging.DEBUG)) == 2  # train.log all of it


class StopAt(Callback):
    def __init__(self, iteration):
        self.iteration = iteration

    def on_train_batch_end(self, trainer, gan, outputs, batch, batch_idx):
        trainer.should_stop = gan.global_step == self.iteration


def test_run_without_an_end_says_so(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, LOGGER)
    fit(small_gan(), tmp_path, -1, callbacks=[Console(every_n_steps=2), StopAt(2)], max_epochs=-1)
    (line,) = lines(caplog)
    assert line.startswith("epoch 1, iteration 2") and line.endswith("no end set")


def test_networks_and_data_are_told_before_training(tmp_path, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    run(tmp_path, 1, every=1)
    table, data, line = said(caplog)
    for word in ("generator", "ConvTranspose2d", "BatchNorm2d", "discriminator", "Linear", "total"):
        assert word in table
    assert data.startswith(f"{BATCH_SIZE * BATCHES} real images of 1 x 8 x 8, uint8 [0, 255] normalized to [-1, 1]")
    assert f"{BATCH_SIZE} in a batch, {BATCHES} batches in an epoch" in data
    assert line.startswith("epoch 1")


@pytest.mark.parametrize("columns", ["1", "20", "4000"])
def test_the_table_is_whole_however_narrow_the_terminal_is(tmp_path, caplog, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    caplog.set_level(logging.INFO, LOGGER)
    run(tmp_path, 1, every=1)
    table = said(caplog)[0]
    assert "…" not in table and "ConvTranspose2d" in table and max(map(len, table.splitlines())) <= WIDTH


def test_table_has_every_layer_with_its_shape_and_parameters():
    gan = GAN(dcgan.Generator(4, (1, 8, 8), base_channels=4), mlp.Discriminator((1, 8, 8), [16]), latent_dim=4)
    rows = {name: [(row.layer, row.output, row.parameters) for row in rows] for name, rows in network_rows(gan).items()}
    assert [layer for layer, _, _ in rows["generator"]] == [type(layer).__name__ for layer in gan.generator.layers]
    assert [parameters for _, _, parameters in rows["generator"]] == [
        0,
        4 * 8 * 4,
        16,
        0,
        8 * 4 * 16,
        8,
        0,
        4 * 16 + 1,
        0,
    ]
    assert [output.replace("×", "x") for _, output, _ in rows["generator"]][-1] == "1 x 8 x 8"  # noqa: RUF001
    assert rows["discriminator"] == [
        ("Flatten", "64", 0),
        ("Linear", "16", 65 * 16),
        ("LeakyReLU", "16", 0),
        ("Linear", "1", 17),
        ("Flatten", "1", 0),
    ]
    total = sum(parameter.numel() for parameter in gan.discriminator.parameters())
    assert f"**{total:,}**" in markdown_table(network_rows(gan)["discriminator"])


def test_making_the_table_changes_nothing():
    gan = small_gan()
    before = {name: tensor.clone() for name, tensor in gan.state_dict().items()}
    network_rows(gan)
    assert all((tensor == before[name]).all() for name, tensor in gan.state_dict().items())
    assert gan.generator.training and gan.discriminator.training
    assert not any(layer._forward_hooks for layer in gan.modules())


def test_progress_bar_is_off_without_a_terminal():
    assert not ProgressBar().is_enabled


def test_progress_bar_shows_both_losses_in_a_terminal(tmp_path, terminal):
    bar = ProgressBar()
    trainer = fit(
        small_gan(), tmp_path, BATCHES, callbacks=[Scalars(), bar], enable_progress_bar=True, log_every_n_steps=1
    )
    shown = bar.get_metrics(trainer, trainer.lightning_module)
    assert shown.keys() == {"D", "G"}
    assert shown["D"] == f"{trainer.callback_metrics['loss/discriminator']:.3f}"
    assert bar.is_enabled


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (75, "1 min 15 s"), (3 * 3600 + 61, "3 h 1 min")],
)
def test_seconds_are_told_in_the_units_people_use(seconds, text):
    assert format_seconds(seconds) == text


def test_interval_below_one_is_refused_by_its_key():
    with pytest.raises(ValueError, match=r"every_n_steps=0 must be 1 or more"):
        Console(every_n_steps=0)
