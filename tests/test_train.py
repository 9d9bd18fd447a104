import json
import logging
import math
import os
import pty
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan_lightning.cli.checks import check
from gan_lightning.cli.errors import explain
from gan_lightning.runs.checkpoint import AtomicCheckpointIO, load_gan
from gan_lightning.train import build_gan, build_trainer, main

AT_EVALUATIONS = ("mode_collapse", "dead_generator", "memorisation")  # alarms
KEEPS = "gan_lightning.callbacks.saving.Checkpoints"
ONE = ("trainer.max_steps=1", "trainer.log_every_n_steps=1")  # iteration
SCALARS = ("loss/discriminator", "loss/generator", "loss/penalty")


@pytest.fixture
def train(compose, tmp_path):
    """Train in this process: `train("model=dcgan")` -> the run folder."""

    def run(*overrides):
        main(compose(*overrides))
        return tmp_path

    return run


def run_folders(outputs):
    return sorted(path.parent for path in Path(outputs).rglob(".hydra"))


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def score(folder):
    return json.loads((folder / "metrics.json").read_text())


# --- One run from the command line, and what it leaves -----------------------------------------------------


def test_run_from_the_command_line_leaves_what_is_promised_and_its_command_repeats_it(run_cli, idx_data, tmp_path):
    result = run_cli(
        "trainer=debug",
        "trainer.log_every_n_steps=2",
        "callbacks.console.every_n_steps=4",
        "seed=7",
        "metrics=none",
        *idx_data,
    )
    assert result.returncode == 0, result.stderr
    (folder,) = run_folders(tmp_path / "outputs")
    assert folder.parent == tmp_path / "outputs" / "mlp-mnist"
    assert "=" not in str(folder.relative_to(tmp_path))
    files = listing(folder)
    (events,) = [name for name in files if "tfevents" in name]
    promised = {
        *(".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml"),
        *("checkpoints/last.ckpt", "metrics.json", "train.log"),
        *("samples/real.png", "samples/training.gif", *(f"samples/epoch_{epoch:04d}.png" for epoch in range(3))),
        events,
    }
    assert set(files) - {"hparams.yaml"} == promised

    record = score(folder)
    assert record["seed"] == 7
    assert (record["iterations"], record["images"]) == (8, 8 * 8)
    assert record["images_per_second"] == pytest.approx(record["images"] / record["seconds"], rel=0.01)
    assert {"python", "gan-lightning", "torch", "lightning"} <= record["versions"].keys()
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert all(isinstance(record[tag], float) for tag in SCALARS)

    said = result.stdout
    assert result.stderr == ""
    first = next(line for line in said.splitlines() if line.strip())
    assert set(first) <= set("┏━┳┓┌─┬┐+-| "), first  # the table of networks: no warnings of libraries, no tips
    assert [line.split(":")[0] for line in said.splitlines() if line.startswith("epoch ")] == [
        "epoch 1, iteration 4 of 8",
        "epoch 2, iteration 8 of 8",
    ]
    assert "generator" in said and "512 real images of 1 x 28 x 28" in said
    assert f"{record['loss/discriminator']:.4f}" in said
    assert str(folder.relative_to(tmp_path)) in said and "python -m gan_lightning.sample ckpt=" in said
    log = (folder / "train.log").read_text()
    assert "epoch 2, iteration 8 of 8" in log

    threads, python, *arguments = shlex.split(record["command"])
    assert threads == "OMP_NUM_THREADS=1"  # as in this environment; other sums are rounded otherwise
    assert python == "python" and arguments[:2] == ["-m", "gan_lightning"]
    again = run_cli(*arguments[2:])
    assert again.returncode == 0, again.stderr
    _, repeated = sorted(run_folders(tmp_path / "outputs"), key=lambda path: path != folder)
    assert {tag: score(repeated)[tag] for tag in SCALARS} == {tag: record[tag] for tag in SCALARS}
    assert torch.equal(load_gan(repeated).sample(3), load_gan(folder).sample(3))


@pytest.mark.slow
def test_terminal_shows_a_progress_bar_with_losses_and_time_left(idx_data, tmp_path):
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "gan_lightning",
        "trainer=debug",
        "trainer.log_every_n_steps=2",
        "metrics=none",
        *idx_data,
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "140"}
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    assert process.wait(60) == 0
    text = shown.decode(errors="replace")
    assert "Epoch 1/2" in text and "D: " in text and "G: " in text
    assert "epoch 1, iteration" not in text  # the plain lines are for where there is no terminal
    assert "everything is in" in text
    assert len(run_folders(tmp_path)) == 1


@pytest.mark.slow
def test_grid_of_choices_makes_a_run_for_every_combination(run_cli, idx_data, tmp_path):
    result = run_cli(
        "-m", "model=mlp,dcgan", "seed=0,1", "trainer=debug", "trainer.max_steps=2", "metrics=none", *idx_data
    )
    assert result.returncode == 0, result.stderr
    folders = run_folders(tmp_path / "outputs" / "sweeps")
    assert len(folders) == 4
    commands = [score(folder)["command"] for folder in folders]
    for model in ("mlp", "dcgan"):
        for seed in (0, 1):
            assert sum(f"model={model}" in command and f"seed={seed}" in command for command in commands) == 1
    assert len({score(folder)["loss/discriminator"] for folder in folders}) == 4


# --- In this process ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["mlp", "dcgan", "resnet", "r3gan"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_every_model_trains_in_every_precision(train, model, precision):
    narrow = [f"model.{network}.base_channels=8" for network in ("generator", "discriminator") if model != "mlp"]
    short = [
        "trainer.max_steps=2",
        "trainer.log_every_n_steps=1",
        "data.batch_size=8",
        "callbacks.pictures.num_images=8",
    ]
    folder = train(f"model={model}", f"trainer.precision={precision}", *narrow, *short)
    record = score(folder)
    assert record["iterations"] == 2
    assert all(0 < record[tag] < 10 for tag in SCALARS)
    samples = load_gan(folder).sample(2)
    assert samples.dtype == torch.float32 and samples.isfinite().all()


def test_weights_move_away_from_their_start(train):
    folder = train("trainer.log_every_n_steps=1")
    images = [(folder / "samples" / f"epoch_{epoch:04d}.png").read_bytes() for epoch in range(3)]
    assert len(set(images)) == 3


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [
        ("mlp_day24", {"reuse_fake": True, "ema": None, "data.batch_size": 128, "trainer.max_epochs": 50,
                       "callbacks.console.every_n_steps": 200, "optimizer.generator.betas": [0.9, 0.999]}),
        ("mlp_day22", {"data.batch_size": 64, "data.replacement": True, "trainer.max_steps": 10_000,
                       "loss.discriminator_scale": 0.5, "model.discriminator.dropout": 0.4,
                       "model.generator.hidden": [256, 512, 1024], "optimizer.generator.eps": 1e-7,
                       "callbacks.console.every_n_steps": 100, "callbacks.pictures.nrow": 10}),
    ],
)  # fmt: skip
def test_recipe_has_the_settings_of_its_page(compose, experiment, expected):
    from omegaconf import OmegaConf

    config = compose(f"experiment={experiment}", small=False)
    found = {key: OmegaConf.select(config, key) for key in expected}
    assert {key: list(v) if OmegaConf.is_list(v) else v for key, v in found.items()} == expected
    assert not config.penalty


def experiments():
    return sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("experiment", experiments())
def test_recipe_trains_for_three_iterations(train, experiment):
    folder = train(
        *(f"experiment={experiment}", "trainer.max_epochs=-1", "trainer.max_steps=3", "trainer.log_every_n_steps=1"),
        *("data.batch_size=8", "callbacks.pictures.num_images=2"),
    )
    assert score(folder)["iterations"] == 3
    assert all(torch.tensor(score(folder)[tag]).isfinite() for tag in SCALARS if tag in score(folder))


def test_ten_samples_in_a_row_are_the_pictures_of_day22(train):
    from PIL import Image

    folder = train("experiment=mlp_day22", *ONE)
    with Image.open(folder / "samples" / "epoch_0001.png") as picture:
        assert picture.size == (10 * 30 + 2, 30 + 2)


def test_final_losses_are_those_of_the_last_iteration_though_no_interval_ends_there(train, tmp_path):
    """Eight iterations, logged at 3 and 6: what stands in metrics.json must not be two iterations old."""
    record = score(train("trainer.log_every_n_steps=3"))
    for used in tmp_path.iterdir():
        shutil.rmtree(used) if used.is_dir() else used.unlink()
    exact = score(train("trainer.log_every_n_steps=1"))
    assert record["iterations"] == exact["iterations"] == 8
    assert {tag: record.get(tag) for tag in SCALARS} == {tag: exact[tag] for tag in SCALARS}


def test_progress_bar_can_be_switched_off_by_lightnings_own_key(train):
    assert score(train("trainer.enable_progress_bar=false", *ONE))["iterations"] == 1


@pytest.mark.parametrize("override", ["+trainer.fast_dev_run=true", "callbacks.checkpoint=null", "seed=0"])
def test_a_next_step_is_named_only_where_it_works(train, caplog, override):
    caplog.set_level(logging.INFO)
    folder = train(*ONE, override)
    assert ("gan_lightning.sample ckpt=" in caplog.text) == (folder / "checkpoints" / "last.ckpt").exists()


def test_run_without_penalty_and_average_has_neither(train):
    folder = train("penalty=none", "ema=null", *ONE)
    assert "loss/penalty" not in score(folder)
    assert load_gan(folder).ema is None


def test_initial_weights_follow_from_the_seed(compose):
    from gan_lightning.train import build_gan

    first, again, other = (build_gan(compose(f"seed={seed}")) for seed in (1, 1, 2))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert not torch.equal(first.generator.layers[0].weight, other.generator.layers[0].weight)


def test_observing_changes_nothing(compose, tmp_path):
    """Curves, pictures, average, scores, checkpoints: with all of them and with none, the same bits."""

    def final_weights(name, *overrides):
        trained = []

        class Keep(Callback):
            def on_train_end(self, trainer, gan):
                trained.append({key: value.clone() for key, value in gan.state_dict().items() if key[:4] != "ema."})

        config = compose("trainer.max_epochs=2", "trainer.limit_train_batches=4", *overrides, folder=tmp_path / name)
        trainer = build_trainer(config, Keep())
        trainer.fit(build_gan(config), instantiate(config.data))
        return trained[0]

    scores = ("metrics=judge", "metrics.num_samples=512", "metrics.cache=null", "trainer.check_val_every_n_epoch=1")
    often = ("logger=many", "trainer.log_every_n_steps=1", "callbacks.checkpoint.every_n_steps=1", *scores)
    watched = final_weights("watched", *often)
    alone = final_weights(
        *("alone", "logger=none", "metrics=none", "ema=null", "trainer.log_every_n_steps=1000"),
        *(f"callbacks.{name}=null" for name in ("scalars", "console", "progress_bar", "pictures", "checkpoint")),
        "control.record=null",
    )
    assert (tmp_path / "watched" / "checkpoints" / "best.ckpt").exists() and not (tmp_path / "alone").exists()
    assert watched.keys() == alone.keys()
    assert all(torch.equal(watched[key], alone[key]) for key in alone)


@pytest.mark.parametrize("n_critic", [1, 5])
def test_every_tag_and_file_has_the_iteration_as_its_step(train, monkeypatch, n_critic):
    """Everything that a run writes, all of it often: 2 epochs of 8 iterations."""
    saved, save = [], AtomicCheckpointIO.save_checkpoint

    def watched(self, checkpoint, path, storage_options=None):
        saved.append((Path(path).name, checkpoint["global_step"]))
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", watched)
    folder = train(
        *(
            "data.batch_size=64",
            "trainer.limit_train_batches=8",
            "trainer.limit_val_batches=2",
            f"n_critic={n_critic}",
            "schedule=cosine",
            "schedule.warmup=3",
        ),
        *("trainer.log_every_n_steps=2", "callbacks.checkpoint.every_n_steps=3"),
        *("optimizer.generator.lr=2e-3", "optimizer.discriminator.lr=1e-3"),
        *("metrics=judge", "metrics.num_samples=512", "metrics.cache=null", "trainer.check_val_every_n_epoch=1"),
    )
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "histograms": 0}).Reload()
    curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    logged, epochs = list(range(2, 17, 2)), [8, 16]
    with_turns = [step for step in logged if step >= n_critic]
    for tag, points in curves.items():
        steps = [step for step, _ in points]
        if tag.startswith("metrics/") or tag in [f"alarm/{name}" for name in AT_EVALUATIONS]:
            assert steps == epochs, tag
        else:
            assert steps == (with_turns if tag in ("loss/generator", "grad_norm/generator") else logged), tag
    assert {"loss/penalty", "prob/fake", "progress/images_per_second", "alarm/discriminator_won"} <= curves.keys()
    assert {"metrics/fid", "metrics/variety", "alarm/mode_collapse"} <= curves.keys()
    assert curves["progress/epoch"] == [(step, step / 8) for step in logged]
    for name, lr in ("discriminator", 1e-3), ("generator", 2e-3):
        for step, value in curves[f"lr/{name}"]:
            done = step - 1  # iterations before this one
            factor = (done + 1) / 4 if done < 3 else (1 + math.cos(math.pi * (done - 3) / 13)) / 2
            assert value == pytest.approx(lr * factor), (name, step)

    images = {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}
    assert images == {"samples/real": [0], "samples/fixed": [0, *epochs], "samples/interpolation": [0, *epochs]}
    assert [event.step for event in events.Histograms("histogram/classes")] == epochs
    assert [name for name in listing(folder / "samples") if name.startswith("epoch")] == [
        f"epoch_{epoch:04d}.png" for epoch in range(3)
    ]
    assert [step for name, step in saved if name == "last.ckpt"] == [3, 6, 8, 9, 12, 15, 16]
    best = min(curves["metrics/fid"], key=lambda point: point[1])[0]
    for name, step in ("last", 16), ("best", best):
        assert torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"] == step
    assert score(folder)["iterations"] == 16


@pytest.mark.parametrize("shape", ["[1,28,28,1]", "[28]", "28"])
def test_image_shape_of_other_than_three_numbers_is_refused(compose, shape):
    with pytest.raises(ValueError, match=r"^data\.image_shape=.* must be channels, height, width"):
        check(compose(f"data.image_shape={shape}", "model=dcgan"))


def test_a_logger_that_is_added_by_hand_writes_into_the_runs_folder(train, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    target = "lightning.pytorch.loggers.CSVLogger"
    more = f"+logger.mine={{_target_:{target},name:mine}}"
    folder = train(*ONE, more)
    assert (folder / "mine").is_dir() and listing(tmp_path / "elsewhere") == []


@pytest.mark.slow
@pytest.mark.skipif(not Path("~/.cache/gan_lightning/mnist").expanduser().is_dir(), reason="needs MNIST's files")
@pytest.mark.parametrize(
    "chosen",
    [
        ["model=r3gan"],
        ["model=resnet", "conditioning=projection"],
        ["data=stacked_mnist"],
        ["experiment=stacked_r3gan"],
    ],
    ids=" ".join,
)
def test_debug_means_seconds_and_scores_as_well(run_cli, tmp_path, chosen):
    started = time.monotonic()
    result = run_cli(*chosen, "trainer=debug", f"metrics.cache={tmp_path}/cache", "hydra.run.dir=run", timeout=120)
    assert result.returncode == 0, result.stderr
    assert time.monotonic() - started < 60  # 20 on two quiet cores, after its first word
    record = score(tmp_path / "run")
    assert record["iterations"] == 8 and record["scored"]["num_samples"] == 500
    assert "training split, 500 of 60,000 images" in record["scored"]["reference"]
    assert not (tmp_path / "cache").exists()


LIGHTNING = "lightning.pytorch.callbacks"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["+trainer.callbacks=[]"], r"trainer.callbacks has no effect; use \+callbacks.<name>"),
        (["+trainer.logger=false"], "trainer.logger has no effect; use logger=none"),
        (["+trainer.enable_checkpointing=false"], "use ~callbacks.checkpoint"),
        (["+trainer.plugins=[]"], "trainer.plugins has no effect"),
        (["+trainer.overfit_batches=1"], "trainer.overfit_batches"),
        (["+trainer.accumulate_grad_batches=2"], "use a larger data.batch_size"),
        (["trainer.precision=fp16"], "trainer.precision=fp16"),
        (["trainer.precision=transformer-engine-float16"], "use bf16-mixed or 32-true"),
        (["+callbacks.x=3"], r"callbacks.x=3 is not a callback; write callbacks.x=\{_target_: …\}"),
        (["cuda_graph=true", "~control.cuda_graph"], "cuda_graph=true has no effect without control.cuda_graph"),
        (["logger=none", f"+callbacks.lr._target_={LIGHTNING}.LearningRateMonitor"], "callbacks.lr: logger=none"),
        ([f"+callbacks.bar._target_={LIGHTNING}.TQDMProgressBar"], "callbacks.bar: .*add ~callbacks.progress_bar"),
        ([f"+callbacks.swa={{_target_: {LIGHTNING}.StochasticWeightAveraging, swa_lrs: 0.1}}"], "callbacks.swa .*ema"),
        ([f"+callbacks.stop={{_target_: {LIGHTNING}.EarlyStopping, monitor: metrics/fid}}"], "callbacks.stop.monitor="),
        ([f"+callbacks.best={{_target_: {LIGHTNING}.ModelCheckpoint, monitor: metrics/kid}}"], "metrics=none has no"),
    ],
)
def test_a_setting_that_would_have_no_effect_is_refused_with_the_key_to_use(compose, overrides, line):
    with pytest.raises(ValueError, match=line):
        main(compose("trainer=cpu", *overrides))


def test_lightnings_own_callbacks_act_without_scores(compose, tmp_path):
    stop = f"{{_target_: {LIGHTNING}.EarlyStopping, monitor: loss/generator, patience: 1, min_delta: 1e9}}"
    keep = f"{{_target_: {LIGHTNING}.ModelCheckpoint, dirpath: {tmp_path}/kept}}"
    main(
        compose(
            "trainer.max_epochs=9", "trainer.log_every_n_steps=1", f"+callbacks.stop={stop}", f"+callbacks.keep={keep}"
        )
    )
    assert json.loads((tmp_path / "metrics.json").read_text())["iterations"] < 9 * 4
    assert list((tmp_path / "kept").glob("*.ckpt"))


@pytest.mark.parametrize(
    ("place", "logdir"), [("outputs/a run", "outputs"), ("elsewhere/it's", "'elsewhere/it'\"'\"'s'")]
)
def test_the_printed_dashboard_is_of_the_folder_that_the_run_is_in(
    compose, tmp_path, monkeypatch, caplog, place, logdir
):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    (tmp_path / place).mkdir(parents=True)
    main(compose(*ONE, folder=tmp_path / place))
    (line,) = [line for line in caplog.text.splitlines() if "-m tensorboard.main" in line]
    assert line.endswith(f"-m tensorboard.main --logdir {logdir}")


def test_a_list_that_is_too_short_is_named(compose):
    typed = "optimizer.generator.betas=[0.5]"
    with pytest.raises(Exception) as caught:
        build_trainer(config := compose(typed)).fit(build_gan(config), instantiate(config.data))
    assert explain(caught.value, None, [typed]) == f"{typed}: the list has too few values"


def test_the_callbacks_of_a_run_are_those_of_conf_in_their_order(compose):
    config = compose("logger=none")
    trainer = build_trainer(config)
    wanted = [
        block._target_.rpartition(".")[2]
        for name in ("control", "callbacks")
        for block in config[name].values()
        if block
    ]
    found = [type(callback).__name__ for callback in trainer.callbacks]
    assert found == [*(name for name in wanted if name != "Checkpoints"), "Checkpoints"]  # Lightning runs it last


@pytest.mark.parametrize(
    ("name", "words"), [("interrupt", "Ctrl-C ends the run at once"), ("record", "there is no metrics.json")]
)
def test_what_is_missed_without_a_part_of_control_is_said(compose, tmp_path, caplog, name, words):
    main(compose(*ONE, f"~control.{name}"))
    assert f"control.{name} is left out: {words}" in caplog.text
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()
    assert (tmp_path / "metrics.json").exists() == (name != "record")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["logger=csv", "+logger.csv.foo=1"], "logger.csv.foo"),
        (["callbacks.checkpoint.every_n_steps=0"], "callbacks.checkpoint.every_n_steps=0"),
        ([f"+callbacks.mine={{_target_: {KEEPS}, every_n_steps: 0}}"], "callbacks.mine.every_n_steps=0"),
    ],
)
def test_an_argument_that_is_refused_is_named_by_its_key(compose, overrides, key):
    with pytest.raises(InstantiationException) as refused:
        build_trainer(compose(*overrides))
    assert explain(refused.value, None, overrides).startswith(key)
