"""Several devices are one machine: the same weights, to the last digits of float64, BatchNorm included."""

import copy
import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from torch import nn
from torch.testing import assert_close
from two_processes import CASES, OWN_BATCH_NORM, scores, train, write_files

from gan_lightning import devices
from gan_lightning.devices import SyncBatchNorm, batch_norm_over_devices


def torchrun(*words, cwd):
    """A launch of torchrun; its processes see this checkout."""
    command = [sys.executable, "-m", "torch.distributed.run", *words]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    return subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The folder with what both processes leave."""
    folder = tmp_path_factory.mktemp("two")
    write_files(folder)
    port = f"--master-port={free_port()}"
    process = torchrun("--nproc-per-node=2", port, ROOT / "tests" / "two_processes.py", folder, cwd=folder)
    try:
        output, _ = process.communicate(timeout=900)
    finally:
        process.terminate()
    assert process.returncode == 0, output
    return folder


@pytest.fixture(scope="module")
def states(both):
    """What both processes end with, case by case."""
    return [torch.load(both / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_with_half_the_batch_make_the_update_of_one(both, states, tmp_path, case):
    one = train(tmp_path, world_size=1, files=both, **CASES[case])
    for name, tensor in one.items():
        assert_close(states[0][case][name], tensor, rtol=0, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")
    assert any("running_var" in name for name in one) == CASES[case].get("batch_norm", True)


@pytest.mark.parametrize("case", [*CASES, OWN_BATCH_NORM])
def test_both_processes_end_bit_equal(states, case):
    first, second = (state[case] for state in states)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_two_processes_find_the_scores_of_one(both, tmp_path):
    """A mean of their scores, or those of one's own samples alone, would be others."""
    together, alone = json.loads((both / "scores.json").read_text()), scores(tmp_path, world_size=1)
    assert together == alone and alone["num_samples"] == 1100
    for name in ("precision", "recall", "density", "coverage", "sure_share", "conditional_accuracy"):
        assert 0.02 < alone[name] < 0.98, name  # the comparison says something
    assert alone["fid"] > 0.01 and alone["kid"] != 0 and alone["class_kl"] > 0.01


def test_batch_norm_of_each_device_is_another_update_than_that_of_one(states):
    """trainer.sync_batchnorm=false: the statistics both end with are those of the first."""
    first, synchronised = states[0][OWN_BATCH_NORM], states[0]["non_saturating, r1, BatchNorm"]
    name = "generator.layers.2.running_var"
    assert first[name].isfinite().all() and not torch.allclose(first[name], synchronised[name])


@pytest.mark.slow
def test_two_nodes_under_torchrun_are_one_node_with_two_devices(run_cli, idx_data, tmp_path):
    """Two launches on this machine play the nodes; neither is told the run's folder, and they agree on one."""
    small = ["trainer.accelerator=cpu", "trainer.precision=64-true", "trainer.max_steps=4", "metrics=none", *idx_data]
    launches = [
        torchrun(
            *("--nnodes=2", "--nproc-per-node=1", f"--node-rank={node}", "--master-addr=127.0.0.1"),
            *(f"--master-port={port}", "-m", "gan_lightning", "trainer.num_nodes=2", *small),
            cwd=tmp_path,
        )
        for port in [free_port()]
        for node in (0, 1)
    ]
    outputs = [launch.communicate(timeout=900)[0] for launch in launches]
    assert [launch.returncode for launch in launches] == [0, 0], outputs
    (nodes,) = tmp_path.glob("outputs/*/*/checkpoints/last.ckpt")
    assert run_cli("trainer.devices=2", *small, "hydra.run.dir=devices").returncode == 0
    two, one = (
        torch.load(file, weights_only=True) for file in (nodes, tmp_path / "devices" / "checkpoints" / "last.ckpt")
    )
    assert one["global_step"] == two["global_step"] == 4
    for name, tensor in one["state_dict"].items():
        assert torch.equal(two["state_dict"][name], tensor), name


# --- BatchNorm -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(3), nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False, momentum=None)]
)
@pytest.mark.parametrize("steps", [1, 3])
def test_batch_norm_over_one_device_is_that_of_pytorch(monkeypatch, layer, steps):
    monkeypatch.setattr(devices.torch.distributed, "get_world_size", lambda: 1)
    monkeypatch.setattr(devices.distributed, "all_reduce", lambda tensor: tensor)
    ours, theirs = copy.deepcopy(layer).double(), copy.deepcopy(layer).double()
    for _ in range(steps):
        x = torch.randn(6, 3, *[4] * (2 if isinstance(layer, nn.BatchNorm2d) else 0), dtype=torch.float64)
        assert_close(batch_norm_over_devices(ours, x), theirs(x))
    for name, buffer in theirs.named_buffers():
        assert_close(dict(ours.named_buffers())[name], buffer)
    assert_close(batch_norm_over_devices(ours.eval(), x), theirs.eval()(x))


def test_synchronisation_can_be_applied_and_reverted():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    sync = SyncBatchNorm()
    names = list(sync.apply(network).state_dict())
    assert "forward" in vars(network[1]) and "forward" not in vars(network[0])
    assert list(sync.revert(network).state_dict()) == names and "forward" not in vars(network[1])


# --- What is asked for -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", ["1", '"1"', "auto", "2"])
def test_devices_of_a_cpu_are_its_processes(compose, typed):
    assert devices.count_devices(compose("trainer=cpu", f"trainer.devices={typed}")) == (2 if typed == "2" else 1)


@pytest.mark.parametrize("typed", ["1000", "0", "-1", "[0]", "[0,1]", "null", "1.0", "2.5", "true", "abc", '"0,1"'])
def test_devices_that_a_cpu_does_not_have_are_one_line(compose, typed):
    for accelerator in "cpu", *([] if torch.accelerator.is_available() else ["auto"]):
        config = compose(f"trainer.accelerator={accelerator}", f"trainer.devices={typed}")
        with pytest.raises(ValueError, match=r"^trainer.devices=.*(1 to \d+ on this machine|use trainer.devices=1)$"):
            devices.count_devices(config)


@pytest.mark.parametrize(
    ("typed", "number"), [("-1", 4), ("auto", 4), ("[0]", 1), ("[1,3]", 2), ("3", 3), ('"0,"', 1), ('"2"', 2)]
)
def test_devices_of_gpus_are_counted_as_lightning_does(compose, monkeypatch, typed, number):
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 4)
    assert devices.count_devices(compose("trainer=gpu", f"trainer.devices={typed}")) == number


@pytest.mark.parametrize(
    ("typed", "variables", "words"),
    [
        (["trainer.devices=2"], {}, ""),
        (["trainer.devices=2"], {"WORLD_SIZE": "2"}, ""),
        (["trainer.num_nodes=2"], {"WORLD_SIZE": "2", "MASTER_ADDR": "::1"}, ""),
        (["trainer.devices=2"], {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}, ""),
        ([f"trainer.strategy={devices.STRATEGY}"], {}, ""),
        ([], {"WORLD_SIZE": "2"}, "without a launcher: unset WORLD_SIZE"),
        ([], {"SLURM_STEP_NUM_TASKS": "2"}, "unset SLURM_STEP_NUM_TASKS"),
        (["trainer.devices=2"], {"SLURM_NTASKS": "2"}, "start it with srun"),
        (["trainer.num_nodes=2"], {}, "trainer.num_nodes=2: this process would wait"),
        *(([f"trainer.strategy={name}"], {}, "use trainer.strategy=auto") for name in
          ("ddp", "ddp_spawn", "ddp_fork", "ddp_notebook", "fsdp", "single_device")),
        (["trainer.devices=2", "trainer.strategy=ddp"], {}, devices.STRATEGY),
    ],
)  # fmt: skip
def test_processes_that_will_not_come_are_not_waited_for(compose, monkeypatch, typed, variables, words):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = compose("trainer=cpu", *typed)
    if not words:
        return devices.check_processes(config, config.trainer.devices)
    with pytest.raises(ValueError, match=words):
        devices.check_processes(config, config.trainer.devices)
