"""The way into a command: what people read when they ask, and when they err."""

import copy
import errno
import json
import logging
import os
import re
import resource
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, RunCli
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError

from gan_lightning.cli.arguments import _none_for, read_argv
from gan_lightning.cli.checks import check, check_numbers
from gan_lightning.cli.errors import UsageError, explain, is_bug, suggest_keys
from gan_lightning.cli.processes import check_launcher
from gan_lightning.files import conf_dir, groups, options
from gan_lightning.runs.folder import check_new
from gan_lightning.runs.state import alone_in
from gan_lightning.train import main as train

SECONDS = 2  # for --help and for a mistake, as promised


def error_line(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that failed."""
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in result.stdout
    return lines[0].removeprefix("error: ")


def test_help_names_every_choice_and_a_command_for_each_job(run_cli: RunCli) -> None:
    text = run_cli("--help").stdout
    for group in groups():
        for option in options(group):
            assert f" {option}" in text.split(f"\n{group}\n")[1]
    for promised in (
        "python -m gan_lightning -m",
        "gan_lightning.sample",
        "trainer.devices=2",
        "--cfg job",
        "outputs/",
    ):
        assert promised in text
    assert "* mlp " in text  # the default


@pytest.mark.parametrize("config", sorted(path.stem for path in conf_dir().glob("*.yaml")))
def test_every_command_has_a_help_text(config: str) -> None:
    from gan_lightning.cli.help import help_text

    assert f"python -m gan_lightning{'' if config == 'train' else f'.{config}'}" in help_text(config)


@pytest.mark.parametrize("args", [["--help"], ["--foo"], ["modle=x"], ["model=dcgn"], ["seed"]], ids=" ".join)
def test_help_and_mistakes_answer_at_once(run_cli: RunCli, args: list[str]) -> None:
    def cpu_seconds() -> float:  # not wall time: the tests beside this one keep the cores busy
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    took = []
    for _ in range(3):
        start = cpu_seconds()
        run_cli(*args)
        took.append(cpu_seconds() - start)
    assert min(took) < SECONDS


@pytest.mark.parametrize("module", ["gan_lightning", "gan_lightning.sample"])
@pytest.mark.parametrize("mistake", ["--help", "no.such.key=1"])
def test_torch_is_not_imported_before_the_config_stands(run_cli: RunCli, module: str, mistake: str) -> None:
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['x', {mistake!r}]\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit:\n"
        "    pass\n"
        "assert not {'torch', 'lightning', 'torchvision', 'numpy'} & set(sys.modules)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], check=True, env=env, capture_output=True)


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ("modle=x", "modle=x: unknown key; did you mean model?"),
        ("lr=1", "lr=1: unknown key; did you mean optimizer.generator.lr or optimizer.discriminator.lr?"),
        ("trainer.max_epoch=3", "trainer.max_epoch=3: unknown key; did you mean trainer.max_epochs?"),
        ("model.generator.hiden=[1]", "did you mean model.generator.hidden?"),
        ("model=dcgan model.generator.base_chanels=8", "did you mean model.generator.base_channels?"),
        ("trainer.limit_train_batches=2", "takes a plus: +trainer.limit_train_batches=2"),
        (
            "model=dcgn",
            "model=dcgn: no such option; did you mean model=dcgan? model is one of dcgan, mlp, r3gan, resnet",
        ),
        ("model=3", "model=3: no such option; model is one of dcgan, mlp, r3gan, resnet"),
        ("seed", "cannot read 'seed': settings are written key=value"),
        ("=3", "cannot read '=3': the key before = is missing"),
        (
            "latent_dim=a=b",
            "cannot read 'latent_dim=a=b': quote the value, and all of it for the shell: 'latent_dim=\"a=b",
        ),
        ("resume=a=b", "resume=a=b: there is no file a=b"),
        ("resume=runs/a,b", "resume=runs/a,b: there is no file runs/a,b"),
        ("hydra.job.chdir=True", "hydra.job.chdir=True: paths start at the folder where you type the command"),
        ("data.root=\udce4", "'data.root=\\udce4' is not UTF-8; rename it"),
        ("seed=0,1", "seed=0,1: several values; add -m to run each"),
        ("+seed=1", "+seed: the config already has it; leave out the +"),
        ("--halp", "unknown flag --halp; did you mean --help?"),
        ("--max-epochs=3", "unknown flag --max-epochs; settings are written key=value, as in trainer.max_epochs=3"),
        ("--config-name nope", "Cannot find primary config 'nope'"),
        ("seed=1 -m model=mlp,dcgn", "model=dcgn: no such option"),
    ],
)
def test_a_mistyped_command_line_gets_one_line_that_says_what_was_meant(run_cli: RunCli, args: str, line: str) -> None:
    result = run_cli(*args.split())
    assert line in error_line(result)
    assert result.returncode == 2


@pytest.fixture
def fail_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., str]]:
    """Run a training that fails, in this process, which has torch at hand; return its line."""
    from gan_lightning.train import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # put back afterwards, as are these
    monkeypatch.setattr(logging, "raiseExceptions", True)
    handlers = logging.getLogger().handlers[:]

    def run(*args: str) -> str:
        monkeypatch.setattr(sys, "argv", ["gan_lightning", *args])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert exit_.value.code == 1
        out, err = capsys.readouterr()
        assert "Traceback" not in out
        (line,) = err.splitlines()
        return line.removeprefix("error: ")

    yield run
    for handler in set(logging.getLogger().handlers) - set(handlers):
        handler.close()
    logging.getLogger().handlers[:] = handlers
    logging.getLogger("gan_lightning").setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("data.batch_size=0", "data.batch_size=0"),
        ("latent_dim=abc", "latent_dim=abc must be a whole number"),
        ("trainer.max_epochs=abc", "trainer.max_epochs=abc must be a whole number"),
        ("optimizer.generator.lr=big", "optimizer.generator.lr=big must be a number"),
        ("optimizer.generator.lr=-1", "optimizer.generator.lr=-1: Invalid learning rate: -1"),
        ("optimizer.generator.lr=-1e-3", "optimizer.generator.lr=-1e-3: Invalid learning rate: -0.001"),
        ("penalty.weight=-1", "penalty.weight=-1"),
        ("trainer.precision=fp17", "trainer.precision=fp17: "),
        ("+trainer.foo=1", "trainer.foo: lightning.pytorch.trainer.trainer.Trainer has no such argument"),
        ("+model.generator.hiden=1", "model.generator.hiden: gan_lightning.models.mlp.Generator has no such argument"),
        ("trainer.accelerator=tpx", "trainer.accelerator=tpx: "),
        ("loss._target_=gan_lightning.losses.Nope", "loss: Error loading 'gan_lightning.losses.Nope'"),
    ],
)
def test_a_value_that_a_part_refuses_is_named_with_its_key(
    fail_here: Callable[..., str], idx_data: list[str], override: str, line: str
) -> None:
    assert fail_here("trainer=debug", "metrics=none", *idx_data, "hydra.run.dir=run", override).startswith(line)


@pytest.mark.parametrize("plus", ["", *(pytest.param(plus, marks=pytest.mark.slow) for plus in ("+", "++"))])
def test_lightnings_clipping_is_answered_with_ours(run_cli: RunCli, idx_data: list[str], plus: str) -> None:
    result = run_cli("trainer=debug", "metrics=none", *idx_data, f"{plus}trainer.gradient_clip_val=0.5")
    assert error_line(result) == (
        "trainer.gradient_clip_val=0.5: Lightning cannot clip for two optimizers; use max_gradient_norm=0.5"
    )


def test_a_gpu_that_is_not_there_is_one_line(
    fail_here: Callable[..., str], idx_data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("lightning.pytorch.accelerators.CUDAAccelerator.is_available", lambda: False)
    line = fail_here("trainer=gpu", "metrics=none", *idx_data, "hydra.run.dir=run")
    assert line == "trainer.accelerator=gpu: torch finds no GPU on this machine; use trainer=cpu"


PLUGIN = """
import os
from lightning import Callback

class Fail(Callback):
    def __init__(self, rank=0):
        self.rank = rank

    def on_train_start(self, trainer, gan):
        if trainer.global_rank == self.rank:
            raise TypeError("a bug\\nwith HYDRA_FULL_ERROR=" + os.environ.get("HYDRA_FULL_ERROR", ""))
"""
IN_A_SMALL_RUN = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's


@pytest.fixture
def fail(tmp_path: Path, idx_data: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides of a small run in which a callback fails."""
    (tmp_path / "plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "plugin", raising=False)
    return ["trainer=debug", "metrics=none", *idx_data, "hydra.run.dir=run", "+callbacks.fail._target_=plugin.Fail"]


@IN_A_SMALL_RUN
def test_a_bug_is_one_line_and_its_traceback_is_in_the_log(fail_here: Callable[..., str], fail: list[str]) -> None:
    line = fail_here(*fail)
    # The switch is ours: processes that a job starts do not take it for the user's.
    assert line == "TypeError: a bug with HYDRA_FULL_ERROR= (traceback in run/train.log)"
    assert "in on_train_start" in Path("run/train.log").read_text()


@IN_A_SMALL_RUN
def test_a_debugging_user_gets_the_error_itself(
    fail_here: Callable[..., str], fail: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gan_lightning.train import main

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["gan_lightning", *fail])
    with pytest.raises(TypeError, match="HYDRA_FULL_ERROR=1"):
        main()


def test_a_debugging_user_s_numbers_are_checked_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["gan_lightning", "trainer=debug", "n_critic=2.5", "hydra.run.dir=run"])
    with pytest.raises(ValueError, match=r"^n_critic=2\.5 must be a whole number$"):
        train()


def test_a_full_disk_is_one_line_that_says_what_is_left(tmp_path: Path) -> None:
    line = explain(OSError(errno.ENOSPC, "No space left on device", f"{tmp_path}/last.ckpt"), folder=str(tmp_path))
    assert line.startswith(f"{tmp_path}/last.ckpt: the disk is full (")
    assert line.endswith(f"stays in {tmp_path}")


@IN_A_SMALL_RUN
def test_a_disk_that_fills_up_while_running_is_one_line(fail_here: Callable[..., str], idx_data: list[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this machine")
    Path("run/samples").mkdir(parents=True)
    Path("run/samples/real.png.part").symlink_to("/dev/full")  # where the picture is written first
    assert "the disk is full" in fail_here(
        "trainer=debug", "trainer.log_every_n_steps=1", "metrics=none", *idx_data, "hydra.run.dir=run"
    )


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_of_two_processes_says_which_failed_and_leaves_none(
    run_cli: RunCli, fail: list[str], tmp_path: Path, rank: int
) -> None:
    env = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    result = run_cli(*fail, "trainer.devices=2", f"+callbacks.fail.rank={rank}", env=env)
    first = result.stderr.splitlines()[0]
    assert first.startswith(f"error: {'rank 1: ' if rank else ''}TypeError: a bug")
    assert result.returncode != 0
    assert f"rank {rank} failed" in (tmp_path / "run" / "train.log").read_text()


def test_a_saved_config_runs_again_in_a_folder_of_its_own(run_cli: RunCli, idx_data: list[str], tmp_path: Path) -> None:
    assert run_cli("trainer=debug", "metrics=none", *idx_data, "hydra.run.dir=run", "seed=5").returncode == 0
    rerun = ["--config-path", "run/.hydra", "--config-name", "config"]
    before = contents(tmp_path)
    result = run_cli(*rerun, "hydra.run.dir=run")
    assert result.returncode == 2 and "holds a run already; go on with it: resume=run;" in result.stderr
    assert contents(tmp_path) == before
    result = run_cli(*rerun, "hydra.run.dir=again")
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "run"]
    assert not list((tmp_path / "again").glob("gan_lightning*.log")), "its log is train.log"
    assert "seed: 5" in (tmp_path / "again" / ".hydra" / "config.yaml").read_text()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


TRACES = [
    *("metrics.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt", "samples/epoch_0000.png"),
    *("events.out.tfevents.1", "csv/metrics.csv", "csv/from_iteration_3/metrics.csv"),
]


@pytest.mark.parametrize(("trace", "name"), [*zip(TRACES, ["r", "a run, (old)", "Größe"] * 3, strict=False)])
def test_a_new_run_is_not_mixed_with_an_old_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, trace: str, name: str
) -> None:
    old = tmp_path / name
    for file in (trace, ".hydra/config.yaml", "train.log", "error.txt"):
        (old / file).parent.mkdir(parents=True, exist_ok=True)
        (old / file).write_text("of the old run")
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    typed = f"hydra.run.dir='{name}'" if trace != "metrics.json" else f"hydra.run.dir='{old}'"
    monkeypatch.setattr(sys, "argv", ["gan_lightning", "trainer=debug", "metrics=none", typed])
    with pytest.raises(SystemExit) as end:
        train()
    assert end.value.code == 2 and contents(tmp_path) == before
    (line,) = capsys.readouterr().err.splitlines()
    way_out = f"go on with it: resume={shlex.quote(name)}; or " if trace.endswith("last.ckpt") else ""
    assert line == f"error: hydra.run.dir={name} holds a run already; {way_out}choose another folder for a new one"


def test_a_run_that_failed_at_once_is_in_nobodys_way(tmp_path: Path) -> None:
    for file in (".hydra/config.yaml", "train.log", "error.txt", ".lock", "samples/mine.png", "metrics.csv"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    check_new(tmp_path)
    check_new(tmp_path / "not there")


def test_a_folder_in_which_a_run_is_at_work_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(ValueError, match="another process is at work there"):
        check_new(tmp_path)


def test_a_grid_runs_every_job_and_names_the_one_that_fails(
    run_cli: RunCli, idx_data: list[str], tmp_path: Path
) -> None:
    result = run_cli("trainer=debug", "metrics=none", *idx_data, "-m", "hydra.sweep.dir=sweep", "data.batch_size=0,128")
    assert error_line(result).startswith("1 of 2 jobs failed, the first: sweep/0: data.batch_size=0")
    assert result.returncode == 1
    assert (tmp_path / "sweep" / "1" / "metrics.json").exists()


def test_a_folder_that_cannot_be_written_is_named() -> None:
    line = explain(PermissionError(errno.EACCES, "Permission denied", "/read/only"))
    assert line.startswith("/read/only: permission denied; choose another folder with hydra.run.dir=")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("n=0 must be 1 or more"), "n=0 must be 1 or more"),
        (FloatingPointError("the loss is NaN"), "the loss is NaN"),
        (json.JSONDecodeError("Expecting value", "", 0), "JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
        (TypeError("a bug"), "TypeError: a bug"),
    ],
)
def test_what_a_value_error_says_is_for_the_user_and_other_errors_are_bugs(error: Exception, line: str) -> None:
    assert explain(error) == line
    assert is_bug(error) == (line != str(error))


def test_suggestions_prefer_the_same_last_part_in_the_same_block() -> None:
    keys = ["seed", "data.seed", "optimizer.generator.lr", "optimizer.discriminator.lr", "trainer.max_epochs"]
    assert suggest_keys("optimizer.lr", keys) == ["optimizer.generator.lr", "optimizer.discriminator.lr"]
    assert suggest_keys("trainer.seed", keys) == ["seed", "data.seed"]
    assert suggest_keys("trainer.max_epoch", keys) == ["trainer.max_epochs"]
    assert suggest_keys("quite.other", keys) == []


@pytest.mark.parametrize(
    ("args", "key"),
    [
        ("trainer.max_epochs=2e0", "trainer.max_epochs=2.0 must be a whole number; write 2"),
        ("trainer.max_epochs=1.5", "trainer.max_epochs=1.5"),
        ("trainer.max_steps=1e1", "trainer.max_steps=10.0"),
        ("trainer.num_nodes=1.5", "trainer.num_nodes=1.5"),
        ("metrics=judge metrics.num_samples=1e3", "metrics.num_samples=1000.0"),
        ("n_critic=2.5", "n_critic=2.5"),
        ("n_critic=true", "n_critic=True"),
        ("seed=2 latent_dim=1e2", "latent_dim=100.0"),
        ("seed=1.5", "seed=1.5"),
        ("data.batch_size=64.0", "data.batch_size=64.0"),
        ("model.generator.hidden=[1e2]", "model.generator.hidden=[100.0]"),
        ("model=dcgan model.generator.base_channels=8.0", "model.generator.base_channels=8.0"),
        ("callbacks.alarms.patience=1e3", "callbacks.alarms.patience=1000.0"),
    ],
)
def test_a_whole_number_that_is_typed_as_another_is_named_before_anything_is_built(
    compose: Callable[..., DictConfig], args: str, key: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(key)}"):
        check_numbers(compose(*args.split()), "train")


def test_whole_numbers_and_fractions_stay_as_they_are_in_every_recipe(compose: Callable[..., DictConfig]) -> None:
    for recipe in options("experiment"):
        check_numbers(compose(f"experiment={recipe}", "trainer.max_steps=20", small=False), "train")
    check_numbers(compose("trainer.limit_train_batches=0.5", "ema.half_life_kimg=3"), "train")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("seed=-1", "seed=-1 must be a whole number, 0 or more"),
        ("latent_dim=0", "latent_dim=0 must be a whole number, 1 or more"),
        ("data.image_shape=[28]", "data.image_shape=[28] must be channels, height, width"),
        ("+schedule@penalty.schedule=cosine penalty=none", "penalty={schedule: …}: penalty=none has no settings"),
        ("penalty.schedule=cosine", "penalty.schedule=cosine: the option of a group inside"),
        ("trainer.precision=fp16", "trainer.precision=fp16 is not supported"),
        ("trainer.max_epochs=0", "trainer.max_epochs=0: there is nothing to train"),
        ("+trainer.limit_train_batches=0", "trainer.limit_train_batches=0: there is nothing to train"),
        ("+trainer.max_time='00:00:00:00'", "trainer.max_time=00:00:00:00: there is no time to train"),
        ("+trainer.max_time={hours:0}", "trainer.max_time={'hours': 0}: there is no time to train"),
        ("trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch=0 must be 1 or more"),
        ("+trainer.gradient_clip_val=0.5", "trainer.gradient_clip_val=0.5: Lightning cannot clip"),
        ("+trainer.plugins=[]", "trainer.plugins has no effect"),
    ],
)
def test_a_setting_of_a_training_that_cannot_be_used_is_named(
    compose: Callable[..., DictConfig], override: str, line: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(line)}"):
        check(compose(*override.split(), small=False))


def test_settings_of_every_recipe_are_accepted(compose: Callable[..., DictConfig]) -> None:
    for recipe in options("experiment"):
        check(compose(f"experiment={recipe}", small=False))
    check(compose("+trainer.max_time='00:00:30:00'", "trainer.check_val_every_n_epoch=null", small=False))


@pytest.mark.parametrize(
    ("command", "override", "key"),
    [("train_judge", "seed=1.5", "seed"), ("train_judge", "epochs=1e1", "epochs"), ("sample", "n=1.5", "n")],
)
def test_every_command_checks_its_whole_numbers(
    compose: Callable[..., DictConfig], command: str, override: str, key: str
) -> None:
    with pytest.raises(ValueError, match=f"^{key}=.* must be a whole number"):
        check_numbers(compose(override, config_name=command, small=False), command)


@pytest.mark.parametrize(
    ("message", "overrides", "blamed"),
    [
        ('empty(): failed to unpack the object at pos 2 with error "got float"', ["seed=2", "latent_dim=1e2"], None),
        ("SWA currently works with 1 `optimizer`.", ["trainer.max_epochs=1"], None),
        ("Invalid learning rate: -1", ["seed=1", "optimizer.generator.lr=-1"], "optimizer.generator.lr=-1"),
        ("Invalid learning rate: -0.001", ["optimizer.generator.lr=-1e-3"], "optimizer.generator.lr=-1e-3"),
        ("Precision 'fp16' is invalid", ["trainer.precision='fp16'"], "trainer.precision='fp16'"),
        ("a stack of 3 of 4 devices", ["n_critic=4", "trainer.devices=4"], "trainer.devices=4"),
    ],
)
def test_a_foreign_error_is_blamed_on_the_one_setting_that_it_quotes(
    message: str, overrides: list[str], blamed: str | None
) -> None:
    with pytest.raises(ValueError) as caught:
        raise ValueError("the optimizer cannot be made") from TypeError(message)
    line = f"{blamed}: {message}" if blamed else "the optimizer cannot be made"
    assert explain(caught.value, overrides=overrides) == line


class Penalty:
    def __init__(self, weight: float, schedule: object = None) -> None:
        if weight < 0:
            raise ValueError(f"weight={weight} must be positive")
        if weight > 10:
            raise ValueError(f"penalty.weight={weight} must be 10 or less")


class Gan:
    def __init__(self, penalty: object, n_critic: int, generator: object) -> None:
        if n_critic < 1:
            raise ValueError(f"n_critic={n_critic} must be 1 or more")
        if generator == "mlp":
            raise ValueError("generator: it takes no labels")
        if generator == "foreign":
            raise ValueError("no words of ours")


GAN_BLOCK = {
    "n_critic": 1,
    "weight": 1.0,
    "penalty": {"_target_": "test_cli.Penalty", "weight": "${weight}"},
    "model": {"generator": "other"},
    "gan": {
        "_target_": "test_cli.Gan",
        "penalty": "${penalty}",
        "n_critic": "${n_critic}",
        "generator": "${oc.select:model.generator,null}",
    },
}


@pytest.mark.parametrize(
    ("changed", "block", "line"),
    [
        ({"penalty": {"weight": -1}}, "gan", "penalty.weight=-1 must be positive"),
        ({"penalty": {"weight": -1}}, "penalty", "penalty.weight=-1 must be positive"),
        ({"penalty": {"weight": 11}}, "gan", "penalty.weight=11 must be 10 or less"),
        ({"weight": -1}, "gan", "weight=-1 must be positive"),
        ({"n_critic": 0}, "gan", "n_critic=0 must be 1 or more"),
        ({"model": {"generator": "mlp"}}, "gan", "model.generator: it takes no labels"),
        ({"model": {"generator": "foreign"}}, "gan", "gan: no words of ours"),
        (
            {"penalty": {"wight": 1}},
            "gan",
            "penalty.wight: test_cli.Penalty has no such argument; did you mean weight?",
        ),
    ],
)
def test_an_argument_that_is_refused_gets_the_key_that_was_typed(changed: Any, block: str, line: str) -> None:
    config = OmegaConf.merge(GAN_BLOCK, changed)
    assert isinstance(config, DictConfig)
    with pytest.raises(InstantiationException) as refused:
        instantiate(copy.deepcopy(config)[block])  # which resolves references in place
    assert explain(refused.value, config=config).startswith(line)


@pytest.mark.parametrize(
    ("override", "meant"),
    [(f"~{group}", f"{group}=none") for group in groups() if "/" not in group and "none" in options(group)]
    + [("~ema", "ema=null"), ("~schedule", "schedule=constant"), ("~penalty=r1", "penalty=none")]
    + [(word, word) for word in ("seed=1", "~callbacks.pictures", "~experiment", "~unheard", "model=mlp")],
)
def test_a_group_that_is_taken_away_means_none(override: str, meant: str) -> None:
    assert _none_for(override, "train") == meant


@pytest.mark.parametrize("key", ["data", "loss", "model", "optimizer", "trainer", "callbacks", "seed", "latent_dim"])
def test_what_cannot_be_taken_away_is_one_line(key: str) -> None:
    with pytest.raises(UsageError, match=f"^~{key}: it cannot be left out"):
        _none_for(f"~{key}", "train")


def test_a_resumed_run_is_asked_about_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr("gan_lightning.runs.resume.resumed_overrides", asked.append)
    monkeypatch.setattr(sys, "argv", ["gan_lightning", "resume=run", "~penalty"])
    assert read_argv("train").overrides[:2] == ["resume=run", "penalty=none"]
    assert asked == [["resume=run", "~penalty"]]


def test_a_single_key_that_is_taken_away_and_missed_is_named() -> None:
    with pytest.raises(ConfigAttributeError) as caught:
        config = OmegaConf.create({"trainer": {}})
        OmegaConf.set_struct(config, True)
        _ = config.trainer.devices
    assert explain(caught.value, overrides=["~trainer.devices"]).startswith("~trainer.devices: it cannot be left out")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORLD_SIZE": ""}, ""),
        ({"RANK": "", "LOCAL_RANK": "", "SLURM_STEP_NUM_TASKS": ""}, ""),
        ({"WORLD_SIZE": "2"}, ""),  # a training says more
        ({"SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}, ""),
        ({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "::1", "MASTER_PORT": "1"}, ""),
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE=x in the environment is not a number; unset WORLD_SIZE"),
        ({"RANK": "-1"}, "unset RANK"),
        ({"SOURCE_DATE_EPOCH": "abc"}, "SOURCE_DATE_EPOCH=abc in the environment is not a number"),
        ({"SLURM_STEP_NUM_TASKS": "two"}, "unset SLURM_STEP_NUM_TASKS"),
        ({"LOCAL_RANK": "0"}, "left over from a launcher"),
        ({"LOCAL_RANK": "1"}, "unset LOCAL_RANK"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "MASTER_ADDR, MASTER_PORT; unset RANK"),
        ({"SLURM_PROCID": "1"}, "unset SLURM_PROCID"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "SLURM_JOB_ID, SLURM_STEP_ID; unset"),
        ({"WORLD_SIZE": "1", "RANK": "3", "MASTER_ADDR": "::1", "MASTER_PORT": "1"}, "unset RANK WORLD_SIZE"),
    ],
)
def test_variables_of_a_launcher_that_is_not_there_are_one_line(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if words:
        with pytest.raises(UsageError, match=words):
            check_launcher()
    else:
        check_launcher()
        assert all(os.environ.get(name) == (value or None) for name, value in variables.items())


OWN_LOSS = """
class Loss:
    def discriminator(self, real_logits, fake_logits):
        return fake_logits.mean() - real_logits.mean()

    def generator(self, real_logits, fake_logits):
        return -fake_logits.mean()

class Weighted(Loss):
    def __init__(self, weight):
        self.weight = weight
"""


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Loss", "loss: own_loss.Loss takes no arguments; ~loss.<name> leaves out what conf/ has"),
        ("Weighted", "loss.discriminator_scale: own_loss.Weighted has no such argument; it takes weight; ~loss.dis"),
    ],
)
def test_a_class_of_ones_own_that_takes_other_arguments_is_one_line(
    fail_here: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, line: str
) -> None:
    (tmp_path / "own_loss.py").write_text(OWN_LOSS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_loss", raising=False)
    assert fail_here("trainer=debug", "metrics=none", f"loss._target_=own_loss.{name}").startswith(line)


@pytest.mark.parametrize(
    ("override", "way_out"),
    [
        ("gan.n_critic=3", "type n_critic=3"),
        ("gan.penalty.weight=1", "type penalty.weight=1"),
        ("~gan", "type the key"),
    ],
)
def test_the_block_gan_only_refers_to_what_is_typed(monkeypatch, override, way_out):
    monkeypatch.setattr(sys, "argv", ["gan_lightning", override])
    with pytest.raises(UsageError, match=f"{re.escape(override)}: the block gan only refers to other keys; {way_out}"):
        read_argv("train")
