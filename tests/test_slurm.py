"""srun under a real SLURM, which this file starts and ends: a controller and one node on this machine."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from test_faults import assert_ends_within, crash

from gan_lightning.runs.state import run_state

NEEDED = ("munged", "slurmctld", "slurmd", "srun")
MISSING = [name for name in NEEDED if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: apt-get install slurm-wlm munge"),
    pytest.mark.skipif(os.geteuid() != 0, reason="starts SLURM's daemons, which takes root"),
]

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=all Nodes=ALL Default=YES State=UP
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The environment in which srun finds it."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    ports = []
    for _ in range(2):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            ports.append(listener.getsockname()[1])
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=socket.gethostname(), folder=folder, ports=ports))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    env = {**os.environ, "SLURM_CONF": str(conf), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    daemons = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}",
         f"--pid-file={folder}/munge.pid", f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munge.log"],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", socket.gethostname()],
    ]  # fmt: skip
    log = (folder / "daemons.log").open("w")
    started = []
    try:
        for daemon in daemons:
            started.append(subprocess.Popen(daemon, env=env, stdout=log, stderr=subprocess.STDOUT))
            time.sleep(1)
        deadline = time.monotonic() + 60
        while "idle" not in subprocess.run(["sinfo", "-h"], env=env, capture_output=True, text=True).stdout:
            assert time.monotonic() < deadline, (folder / "daemons.log").read_text()
            time.sleep(0.5)
        yield env
    finally:
        for daemon in reversed(started):
            daemon.terminate()
            daemon.wait(30)
        log.close()


def test_two_tasks_of_srun_make_one_run_with_the_weights_of_two_devices(slurm, run_cli, idx_data, tmp_path):
    small = ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=64-true", "trainer.max_steps=4"]
    small += ["metrics=none", *idx_data]
    command = ["srun", "-N", "1", "--ntasks-per-node=2", sys.executable, "-m", "gan_lightning", *small]
    result = subprocess.run(
        command, cwd=tmp_path, env={**slurm, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (file,) = tmp_path.glob("outputs/mlp-mnist/*/checkpoints/last.ckpt")
    assert Path(file).parents[1].name.startswith("slurm_")
    assert result.stdout.count("everything is in") == 1
    assert run_cli(*small, "hydra.run.dir=devices").returncode == 0
    tasks, devices = (
        torch.load(path, weights_only=True) for path in (file, tmp_path / "devices" / "checkpoints" / "last.ckpt")
    )
    assert tasks["global_step"] == devices["global_step"] == 4
    for name, tensor in devices["state_dict"].items():
        assert torch.equal(tasks["state_dict"][name], tensor), name


@pytest.mark.parametrize("kind", ["grid", "study"])
def test_jobs_of_a_sweep_are_slurm_jobs_whose_devices_srun_starts(slurm, idx_data, tmp_path, kind):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'gan-lightning[slurm]'")
    small = ["trainer=debug", "trainer.accelerator=cpu", "trainer.devices=2", "metrics=none", *idx_data]
    asked = ["sweep.name=night", "sweep.metric=loss/generator", "hydra/launcher=submitit_slurm"]
    if kind == "grid":
        asked.append("seed=0,1")
    else:
        asked += ["sweep=study", "sweep.n_trials=2", "optimizer.generator.lr=interval(1e-4,1e-3)"]
    command = [sys.executable, "-m", "gan_lightning", "-m", *small, *asked]
    result = subprocess.run(
        command, cwd=tmp_path, env={**slurm, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stdout + result.stderr
    folder = tmp_path / "outputs" / "sweeps" / "night"
    for job in "01":
        assert run_state(folder / job).name == "done"
        assert len(list((folder / job).glob("events.out.tfevents.*"))) == 1
    assert any((folder / ".submitit").iterdir())
    assert "2 settings" in result.stdout if kind == "study" else "(2)" in result.stdout


@pytest.mark.parametrize("rank", [0, 1])
def test_a_task_that_crashes_ends_the_run_within_30_seconds(slurm, idx_data, tmp_path, rank):
    words = ["trainer.accelerator=cpu", "metrics=none", *idx_data, *crash(tmp_path, rank)]
    command = ["srun", "-N", "1", "--ntasks-per-node=2", sys.executable, "-m", "gan_lightning", *words]
    process = subprocess.Popen(
        command, cwd=tmp_path, env={**slurm, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    )
    assert_ends_within(process, 30, tmp_path)
    with process.stderr as said:
        assert "something broke" in said.read()
