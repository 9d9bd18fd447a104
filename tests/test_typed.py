"""Names people have: typed as they are for every key that takes a path or a name, and printed to be pasted."""

import logging
import os
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import idx_files
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from gan_lightning.cli.command import command
from gan_lightning.files import written_whole
from gan_lightning.runs.folder import find_checkpoint
from gan_lightning.runs.typed import as_argument, as_typed, quote, rerun_command, to_hydra
from gan_lightning.sweeps.space import override, split
from gan_lightning.terminal import working

# fmt: off
NAMES = [
    "Größe", "圖片", "e\u0301te\u0301", "🎉", "pics (copy)", "two  blanks", " before", "behind ", "a,b", "no,", "it's",
    "he's, she's", "back\\slash", "back\\", "two\\\\", "a\\,b", "[1]", "a[0", "{a}", "{a:b}", "{", "a=b", "a#b", "#a",
    "$HOME", "$(x)", "`x`", 'say "hi"', '"', "'", "ß'\"\\", "a:b", "a::b", "a;b", "a&b|c>d", "*?", "!x", "%20s", "@x",
    "-x", "+x", "~x", "x~", "123", "1e3", "1_0", "nan", "true", "nullable", "choice(a,b)", "range(3)", "glob(*)",
    "epoch=0-step=10.ckpt", "[red]x[/red]", "[/x]", "tab\there", "ligne\nline", "x" * 250,
]
# fmt: on
KEYS = {  # of each command, those that take a path
    "train": ["resume", "data.root", "data.reader.cache", "metrics.cache", "metrics.extractor.judge", "hydra.run.dir"],
    "sample": ["ckpt", "out"],
    "evaluate": ["ckpt", "out", "data.root", "metrics.cache", "metrics.inception.weights"],
    "export": ["ckpt", "out"],
    "leaderboard": ["runs", "out"],
    "train_judge": ["out", "data.root"],
}
CHOICES = {  # that have all of these keys
    "train": ["data=image_folder", "metrics=judge"],
    "evaluate": ["data=image_folder", "metrics=inception"],
}
OTHERS = {"images", "hydra.sweep.dir", "sweep.storage", "logger.csv.save_dir", "trainer.default_root_dir"}
PATHS = sorted({key for keys in KEYS.values() for key in keys} | OTHERS)
TEXTS = ["name", "data.name", "sweep.name", "logger.mlflow.run_name", "logger.wandb.project"]


def read(word: str) -> Any:
    """What Hydra makes of an override."""
    return OverridesParser.create().parse_overrides([word])[0].value()


def pasted(line: str) -> list[str]:
    """The words that bash makes of a command."""
    script = f"printf '%s\\0' {line}"
    return subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True).stdout.split("\0")[:-1]


# --- Typed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [*PATHS, *TEXTS, "+name", "++data.root"])
def test_a_name_is_taken_as_it_stands(key: str) -> None:
    for name in NAMES:
        text = name if key in TEXTS or key == "+name" else f"my/{name}"
        word = to_hydra(f"{key}={text}")
        assert read(word) == text and isinstance(read(word), str)
        assert to_hydra(word) == word  # it is read again by a job of a sweep
        assert as_typed(word) == f"{key}={text}"


@pytest.mark.parametrize("name", sorted(KEYS))
def test_every_command_takes_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_logging: None
) -> None:
    keys, got = [key for key in KEYS[name] if key != "resume"], []

    @command(name)
    def main(config: DictConfig) -> None:
        got.append(config)

    monkeypatch.chdir(tmp_path)
    some = [NAMES[i : i + len(keys)] for i in range(0, len(NAMES), 12)]  # of each kind one, over all
    for names in some:
        typed = dict(zip(keys, (f"a/{text}" for text in names), strict=False))
        words = [f"{key}={text}" for key, text in typed.items()]
        monkeypatch.setattr(sys, "argv", ["x", *CHOICES.get(name, []), *words])
        main()
        for key, text in typed.items():
            if not key.startswith("hydra."):
                assert OmegaConf.select(got[-1], key) == text
            else:
                assert (tmp_path / text / "train.log").exists()


@pytest.mark.parametrize("value", ["null", "Null", ""])
def test_none_stays_none(value: str) -> None:
    assert to_hydra(f"out={value}") == f"out={value}"


def test_a_name_that_reads_as_itself_and_other_keys_are_left_alone() -> None:
    for word in (
        "data.root=pics/a_1.b",
        "seed=1,2",
        "model.generator.hidden=[1]",
        "~logger",
        "model=mlp",
        "x=(",
        "class=1",
    ):
        assert to_hydra(word) == word
    assert to_hydra("hydra.run.dir=${oc.env:HOME}/a") == "hydra.run.dir=${oc.env:HOME}/a"
    assert read(to_hydra('out=${oc.env:X,"a b"}/ü')) == '${oc.env:X,"a b"}/ü'


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("'a b'", "a b"),
        ('"a,b"', "a,b"),
        (r"'it\'s'", "it's"),
        ("'null'", "null"),
        ("'it's'", "it's"),
        (r'"say "hi" \"', 'say "hi" \\'),  # as Lightning quotes the folder of a run
    ],
)
def test_quotes_around_all_of_it_are_hydras(typed: str, meant: str) -> None:
    assert read(to_hydra(f"ckpt={typed}")) == meant


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize("form", ["{}", "'{}'", '"{}"'])
def test_a_tilde_is_the_home_for_every_path(key: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ü")
    for typed, meant in ("~/a b", "/home/ü/a b"), ("~", "/home/ü"), ("a/~/b", "a/~/b"):
        assert read(to_hydra(f"{key}={form.format(typed)}")) == meant


def test_a_tilde_in_a_name_or_before_no_user_is_a_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read(to_hydra("name=~/a")) == "~/a"
    for typed in ("~$report/last.ckpt", "./~$report/last.ckpt"):
        file = tmp_path / "~$report" / "last.ckpt"
        file.parent.mkdir(exist_ok=True)
        file.touch()
        assert find_checkpoint(read(to_hydra(f"ckpt={typed}"))) == file


# --- Sweeps ------------------------------------------------------------------------------------------------


def test_a_comma_stands_between_the_jobs_of_a_sweep() -> None:
    for name in NAMES:
        if name[0] == "~":
            continue
        word = to_hydra(f"data.root=Größe, {quote(name)},x", sweeping=True)
        assert split([word])[1] == {"data.root": {"choices": ["Größe", name, "x"]}}
        if "," not in name and name == name.strip():
            word = to_hydra(f"data.root={name},x", sweeping=True)
            assert split([word])[1] == {"data.root": {"choices": [name, "x"]}}
        assert read(override("data.root", name)) == name  # a trial


def test_hydras_own_words_for_a_sweep_are_left_alone_and_its_folder_is_one() -> None:
    for word in ("data.root=choice(a,b)", "data.root=shuffle(a,b)", "sweep.n_trials=3"):
        assert to_hydra(word, sweeping=True) == word
    for key in ("hydra.sweep.dir", "sweep.name"):
        assert read(to_hydra(f"{key}=a,b", sweeping=True)) == "a,b"


# --- Printed -----------------------------------------------------------------------------------------------


def test_a_path_in_a_printed_command_is_that_path_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [*NAMES, "~", "null", "NULL", "'a'", '"a"', "'it's'"]
    for key in ("ckpt", "resume"):
        for form in ("{}", "outputs/{}", f"{tmp_path}/{{}}"):
            paths = [form.format(name) for name in names]
            words = pasted(" ".join(f"{key}={as_argument(path)}" for path in paths))
            read_again = [os.path.abspath(read(to_hydra(word))) for word in words]
            assert read_again == [os.path.abspath(path) for path in paths]


def test_the_command_that_repeats_a_run_has_its_names_as_typed() -> None:
    typed = [*(f"data.root=a/{name}" for name in NAMES), "seed=1", "model.generator.hidden=[1,2]"]
    line = rerun_command([to_hydra(word) for word in typed])
    assert "data.root=a/Größe" in line or "'data.root=a/Größe'" in line
    words = pasted(line)
    assert words[words.index("gan_lightning") + 1 :] == typed


def test_the_command_that_goes_on_further_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gan_lightning.cli.errors import explain
    from gan_lightning.files import python
    from gan_lightning.runs.resume import check_end

    monkeypatch.chdir(tmp_path)
    done = {"total": {"completed": 9}}
    progress = {
        "epoch_progress": {"current": {"completed": 5}},
        "state_dict": {},
        "epoch_loop.batch_progress": done,
        "epoch_loop.manual_optimization.optim_step_progress": done,
        "epoch_loop.state_dict": {"_batches_that_stepped": 9},
    }
    for name in set(NAMES) - {"tab\there", "ligne\nline"}:  # an error is one line
        file = tmp_path / name / "last.ckpt"
        config = OmegaConf.create({"resume": str(file), "trainer": {"max_epochs": 5, "max_steps": -1}})
        with pytest.raises(ValueError) as caught:
            check_end(config, {"global_step": 9, "loops": {"fit_loop": progress}})
        line = explain(caught.value).partition(f"further: {python()} -m gan_lightning ")[2]
        resume, further = shlex.split(line)
        assert Path(read(to_hydra(resume))).absolute() == file
        assert further == "trainer.max_epochs=6"


def test_a_sweep_without_its_flag_is_printed_with_it(
    type_in: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    from gan_lightning.train import main

    for name in ("Größe", "it's", "a b", "$x", "a,b", "back\\slash", "(1)", "#1"):
        with pytest.raises(SystemExit):
            type_in(main, f"sweep.name={name}")
        words = pasted(capsys.readouterr().err.partition("a sweep takes -m; ")[2])
        assert words[1:-1] == ["-m", "gan_lightning", "-m"] and read(to_hydra(words[-1])) == name


def test_a_name_in_brackets_is_no_style_on_a_terminal(screen: Callable[[bool], Any]) -> None:
    shown = screen(True)
    with working("writing [/x] and [red]a[/red]"):
        pass
    assert "writing [/x] and [red]a[/red]" in shown.getvalue()


# --- Files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x" * 255, "圖" * 85, "x" * 251 + ".png"])
def test_a_file_of_the_longest_name_is_written(tmp_path: Path, name: str) -> None:
    with written_whole(tmp_path / name) as part:
        part.write_text("whole")
    assert (tmp_path / name).read_text() == "whole"


# --- Runs --------------------------------------------------------------------------------------------------


@pytest.fixture
def clean_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What commands change in this process is put back."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    handlers = logging.getLogger().handlers[:]
    yield
    for handler in set(logging.getLogger().handlers) - set(handlers):
        handler.close()
    logging.getLogger().handlers[:] = handlers
    logging.getLogger("gan_lightning").setLevel(logging.NOTSET)


@pytest.fixture
def type_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], clean_logging: None
) -> Callable[..., str]:
    """Run a command in this process, in an empty folder; return what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(main: Callable[[], None], *args: str) -> str:
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        monkeypatch.setattr(sys, "argv", ["gan_lightning", *args])
        main()
        return capsys.readouterr().out

    return run


WORST = 'it\'s "1", [2] {ü}=圖片 #a $x ~\\'
SLOW = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("~x", "a,b", "back\\slash", "'in quotes'", "null", "[/x]", "1e3")
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's, of a small run
@pytest.mark.parametrize("name", [WORST, *SLOW])
def test_a_run_trains_draws_goes_on_and_is_ranked_whatever_it_is_called(
    type_in: Callable[..., str], tmp_path: Path, name: str
) -> None:
    from gan_lightning.leaderboard import main as leaderboard
    from gan_lightning.sample import main as sample
    from gan_lightning.train import main as train

    _, *sha256 = idx_files.write(tmp_path / name / "data")
    here = as_argument(name)
    (folder,), (root,) = pasted(here), pasted(f"{here}/data")
    small = ["trainer=debug", "metrics=none", "trainer.max_steps=1", *sha256]
    printed = type_in(train, *small, f"data.root={root}", f"hydra.run.dir={folder}")
    found = re.search(r"python -m gan_lightning\.sample (.*)", printed)
    assert found
    type_in(sample, *pasted(found[1]), "n=1")
    assert (tmp_path / name / "samples" / "seed_0.png").exists()
    assert "2 in all" in type_in(train, f"resume={folder}", "trainer.max_steps=2")
    type_in(leaderboard, f"runs={folder}", "metric=loss/generator", f"out={folder}/a=b")
    assert (tmp_path / name / "a=b" / "leaderboard.html").exists()


@pytest.mark.slow
def test_two_processes_and_a_sweep_run_below_any_name(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    here = tmp_path / WORST
    _, *sha256 = idx_files.write(here / "data")
    (here / "圖片").symlink_to("data")
    small = ["trainer=debug", "metrics=none", "trainer.max_steps=1", *sha256]
    result = run_cli(*small, "data.root=data", "trainer.devices=2", f"hydra.run.dir={WORST}", cwd=here)
    assert result.returncode == 0, result.stderr
    result = run_cli(*small, "-m", "data.root=data,圖片", f"hydra.sweep.dir=all, {WORST}", cwd=here)
    assert result.returncode == 0, result.stderr
    states = [here / f"all, {WORST}" / str(job) / "metrics.json" for job in range(2)]
    assert all(state.exists() for state in states)
    assert sorted(path.name for path in here.iterdir()) == sorted(["data", "圖片", WORST, f"all, {WORST}"])
