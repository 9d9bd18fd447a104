import json
import os
import subprocess
import sys

import cifar_files
import picture_files
import pytest
import torch
from conftest import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.testing import assert_close

from gan_lightning.files import options
from gan_lightning.runs.checkpoint import load_gan
from gan_lightning.train import main

SETTINGS = (
    *("model=mlp", "penalty=r1", "data.batch_size=32", "seed=5"),
    *("trainer.precision=64-true", "trainer.max_steps=5", "trainer.log_every_n_steps=1"),
    *("metrics=judge", "metrics.num_samples=1100", "metrics.cache=null"),  # three blocks of samples for two processes
)


def launch(folder, *settings):
    """`python -m gan_lightning trainer.devices=2 trainer.accelerator=cpu`, with nothing else that concerns devices."""
    command = [sys.executable, "-m", "gan_lightning", "trainer.devices=2", "trainer.accelerator=cpu", *settings]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    result = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def two(tmp_path_factory, idx_data):
    folder = tmp_path_factory.mktemp("ddp")
    return folder, launch(folder, *SETTINGS, *idx_data)


@pytest.fixture(scope="module")
def run(two):
    (folder,) = [path.parent for path in two[0].rglob(".hydra")]
    return folder


def test_two_processes_make_one_run(two, run):
    folder, result = two
    assert "Traceback" not in result.stdout + result.stderr
    assert result.stdout.count("everything is in") == 1  # one of them speaks
    assert result.stdout.count("512 real images") == 1
    assert len(list((folder / "outputs" / "mlp-mnist").iterdir())) == 1
    assert len(list(run.rglob("events.out.tfevents.*"))) == 1
    assert sorted(path.name for path in (run / "samples").iterdir()) == [
        "epoch_0000.png", "epoch_0001.png", "real.png", "training.gif",
    ]  # fmt: skip
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    record = json.loads((run / "metrics.json").read_text())
    assert (record["iterations"], record["images"]) == (5, 5 * 32)  # the batch is that of both together


def assert_same_weights(one, two):
    """Those of two run folders, in float64; returned."""
    first, second = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for folder in (one, two)
    )
    for name, tensor in first.items():
        assert tensor.dtype == torch.float64
        assert_close(second[name], tensor, rtol=0, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")
    return first


def test_two_processes_end_at_the_weights_of_one(run, compose, tmp_path):
    main(compose("trainer=cpu", *SETTINGS))
    one = assert_same_weights(tmp_path, run)
    assert any(name.startswith("ema.") for name in one)
    start = load_gan(tmp_path)  # built anew, then filled: compare with what was drawn
    assert not torch.equal(
        start.generator.layers[0].weight.double(), torch.zeros_like(one["generator.layers.0.weight"])
    )

    alone, together = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path, run))
    for tag in ("loss/discriminator", "loss/generator", "loss/penalty"):
        assert alone[tag] == pytest.approx(together[tag], abs=1e-6)  # logged in float32
    scores = {tag for tag in alone if tag.startswith("metrics/")}
    assert "metrics/fid" in scores
    for tag in scores:
        assert alone[tag] == pytest.approx(together[tag], rel=1e-5), tag


def test_curves_are_means_over_both_processes(run, compose, tmp_path):
    main(compose("trainer=cpu", *SETTINGS))

    def curves(folder):
        events = EventAccumulator(str(folder)).Reload()
        tags = [tag for tag in events.Tags()["scalars"] if tag.startswith(("loss/", "prob/", "accuracy/", "lr/"))]
        return {tag: [event.value for event in events.Scalars(tag)] for tag in tags}

    one, both = curves(tmp_path), curves(run)
    assert one.keys() == both.keys() and "prob/fake" in one
    for tag, values in one.items():
        assert len(values) == 5
        assert both[tag] == pytest.approx(values, abs=1e-5), tag


def test_gradient_norm_is_that_of_the_whole_batch(run, compose, tmp_path):
    """Gradients are averaged before they are measured: the norm is the same, not the mean of two norms."""
    main(compose("trainer=cpu", *SETTINGS))
    for tag in ("grad_norm/discriminator", "grad_norm/generator"):
        one, both = (
            [event.value for event in EventAccumulator(str(folder)).Reload().Scalars(tag)] for folder in (tmp_path, run)
        )
        assert both == pytest.approx(one, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", options("data"))
def test_two_processes_end_at_the_weights_of_one_on_every_data_set(compose, idx_data, tmp_path, name):
    files = {
        "cifar10": lambda: cifar_files.write(tmp_path / "cifar10"),
        "image_folder": lambda: picture_files.write(tmp_path / "pictures"),
    }
    settings = [f"data={name}", *files.get(name, lambda: idx_data)(), "data.batch_size=32", "metrics=none"]
    settings += ["trainer.precision=64-true", "trainer.log_every_n_steps=1", "trainer.max_steps=3"]
    launch(tmp_path, *settings, "hydra.run.dir=two")
    main(compose("trainer=cpu", *settings, small=False, folder=tmp_path / "one"))
    assert_same_weights(tmp_path / "one", tmp_path / "two")
