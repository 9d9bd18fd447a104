"""The leaderboard: run folders -> rows, CSV, HTML, and the command."""

import csv
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT, RunCli
from omegaconf import OmegaConf
from PIL import Image

from gan_lightning.leaderboard import main
from gan_lightning.runs.ranking import rank_runs
from gan_lightning.runs.state import alone_in, run_state
from gan_lightning.runs.tables import show, write_csv, write_html

FID = "metrics/fid"


@pytest.fixture
def make_run(tmp_path):
    """A run folder as training leaves it: `make_run("a", lr=1e-3, seed=0, fid=2.0)`."""

    def make(name, lr=1e-3, seed=0, fid=None, state="done", error=None, model="mlp", folder=tmp_path):
        run = folder / name
        (run / ".hydra").mkdir(parents=True)
        (run / "samples").mkdir()
        config = {"seed": seed, "optimizer": {"lr": lr}, "callbacks": {"console": name}}
        (run / ".hydra" / "config.yaml").write_text(json.dumps(config))
        words = [f"model={model}", f"optimizer.lr={lr}", f"seed={seed}"]
        (run / ".hydra" / "overrides.yaml").write_text(json.dumps(words))
        (run / "train.log").touch()
        if fid is not None:
            record = {
                FID: fid,
                "state": state,
                "seconds": 10.0,
                "command": f"python -m gan_lightning {' '.join(words)}",
            }
            (run / "metrics.json").write_text(json.dumps(record))
        if error:
            (run / "error.txt").write_text(f"{error}\n")
        Image.new("L", (300, 300), color=128).save(run / "samples" / "epoch_0001.png")
        return run

    return make


@pytest.fixture
def mixed(make_run, tmp_path):
    """Two settings with seeds, one pruned, one failed, one killed."""
    for seed, fid in enumerate((3.0, 2.0, 4.0)):
        make_run(f"a{seed}", lr=1e-3, seed=seed, fid=fid)
    for seed, fid in enumerate((2.5, 2.7)):
        make_run(f"b{seed}", lr=2e-3, seed=seed, fid=fid)
    make_run("c", lr=5e-1, fid=90.0, state="pruned")
    make_run("d", lr=-1.0, error="optimizer.lr=-1.0: Invalid <learning> rate")
    make_run("e", lr=7.0)
    return tmp_path


def test_best_mean_comes_first_then_what_has_no_score(mixed):
    rows = rank_runs(mixed, FID, "minimize")
    assert [row.score for row in rows] == ["2.6000 ± 0.1414 (2)", "3.0000 ± 1.0000 (3)", "", "", ""]
    assert [row.state for row in rows] == ["done", "done", "pruned", "killed", "failed"]
    assert [run.folder.name for run in rows[1].runs] == ["a1", "a0", "a2"]  # the best seed first
    assert rows[4].error == "optimizer.lr=-1.0: Invalid <learning> rate"
    assert rows[1].seconds == 30.0


def test_more_can_be_better(mixed):
    assert rank_runs(mixed, FID, "maximize")[0].mean == 3.0
    with pytest.raises(ValueError, match="direction=up must be minimize or maximize"):
        rank_runs(mixed, FID, "up")


@pytest.mark.parametrize(
    ("metric", "first"),
    [
        *((name, 3.0) for name in ("metrics/recall", "metrics/precision", "metrics/modes", "images_per_second")),
        *((name, 1.0) for name in ("metrics/kid", "metrics/memorised", "loss/generator", "seconds")),
    ],
)
def test_a_metric_knows_if_more_of_it_is_better(make_run, tmp_path, metric, first):
    for number, value in enumerate((2.0, 3.0, 1.0)):
        (make_run(f"a{number}", lr=number) / "metrics.json").write_text(json.dumps({metric: value}))
    assert rank_runs(tmp_path, metric)[0].mean == first
    assert rank_runs(tmp_path, metric, "minimize")[0].mean == 1 and rank_runs(tmp_path, metric, "maximize")[0].mean == 3


def test_settings_show_what_differs(mixed):
    rows = rank_runs(mixed, FID, "minimize")
    assert [row.settings for row in rows[:2]] == [("optimizer.lr=0.002",), ("optimizer.lr=0.001",)]  # all are model=mlp


@pytest.mark.parametrize(
    ("typed", "rows"),
    [
        ({"data": {"root": "/elsewhere"}}, 1),
        ({"trainer": {"log_every_n_steps": 7}}, 1),
        ({"callbacks": {"console": None}}, 1),
        ({"metrics": {"num_samples": 100}}, 2),
        ({"latent_dim": 7}, 2),
    ],
)
def test_seeds_of_one_setting_are_one_row_wherever_its_data_lie_and_whatever_watches(make_run, tmp_path, typed, rows):
    for seed in range(2):
        file = make_run(f"a{seed}", seed=seed, fid=2.0 + seed) / ".hydra" / "config.yaml"
        config = OmegaConf.merge(OmegaConf.load(file), {"data": {"reader": {"sha256": {"train_images": "1"}}}})
        OmegaConf.save(OmegaConf.merge(config, typed) if seed else config, file)
    assert len(rank_runs(tmp_path, FID)) == rows


def test_a_row_of_mixed_ends_says_how_many(make_run, tmp_path):
    make_run("a", seed=0, fid=2.0)
    make_run("b", seed=1, error="killed by SIGKILL")
    (row,) = rank_runs(tmp_path, FID, "minimize")
    assert (row.state, row.score, row.error) == ("1 done, 1 failed", "2.0000", "killed by SIGKILL")


def test_csv_has_a_line_for_each_run_with_the_command_that_repeats_it(mixed, tmp_path):
    rows = rank_runs(mixed, FID, "minimize")
    write_csv(rows, tmp_path / "leaderboard.csv", FID)
    lines = list(csv.DictReader((tmp_path / "leaderboard.csv").read_text().splitlines()))
    assert len(lines) == 8
    assert lines[0] == {
        "place": "1",
        FID: "2.5",
        "mean": "2.6",
        "std": str(rows[0].std),
        "state": "done",
        "error": "",
        "seconds": "10.0",
        "seed": "0",
        "settings": "optimizer.lr=0.002",
        "folder": str(mixed / "b0"),
        "command": "python -m gan_lightning model=mlp optimizer.lr=0.002 seed=0",
    }
    assert lines[-1]["command"].endswith("python -m gan_lightning model=mlp optimizer.lr=-1.0 seed=0")


def test_html_holds_all_it_shows(mixed, tmp_path):
    write_html(rank_runs(mixed, FID, "minimize"), tmp_path / "board.html", FID, "night <1>")
    page = (tmp_path / "board.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "Invalid &lt;learning&gt; rate" in page and "night &lt;1&gt;" in page
    assert page.count("<tr>") == 6
    assert len(page) < 40_000  # thumbnails, not pictures


# --- What has become of a run ------------------------------------------------------------------------------


def test_a_run_at_work_is_running_until_its_process_is_gone(make_run):
    run = make_run("a", error="of an earlier try")
    with alone_in(run):
        assert run_state(run).name == "running"
    (run / ".lock").touch()  # as a killed process leaves it
    assert run_state(run).name == "failed"


def test_the_newer_of_error_and_scores_counts(make_run):
    import os

    run = make_run("a", fid=2.0, error="of an earlier try")
    os.utime(run / "error.txt", (1, 1))
    assert run_state(run).name == "done"
    os.utime(run / "metrics.json", (0, 0))
    assert run_state(run).name == "failed"


# --- The command -------------------------------------------------------------------------------------------


def test_leaderboard_prints_and_writes_tables(run_cli: RunCli, mixed):
    result = run_cli("runs=.", module="gan_lightning.leaderboard", cwd=mixed)
    assert result.returncode == 0, result.stderr
    assert "5 settings, by metrics/fid" in result.stdout
    assert "2.6000 ± 0.1414 (2)" in result.stdout
    assert (mixed / "leaderboard.csv").exists() and (mixed / "leaderboard.html").exists()
    assert " more are in" not in result.stdout
    few = run_cli("runs=.", "most=2", module="gan_lightning.leaderboard", cwd=mixed)
    assert "3 more are in leaderboard.csv and .html" in few.stdout


@pytest.mark.parametrize(
    ("end", "code", "env"),
    [
        ("| true", 0, {}),
        (">&-", 0, {}),
        ("> /dev/full", 1, {}),
        ("> said", 0, {"LC_ALL": "C", "PYTHONUTF8": "0"}),
    ],
)
def test_the_files_are_whole_whoever_reads_the_table(mixed, end, code, env):
    command = f'"{sys.executable}" -m gan_lightning.leaderboard runs=. {end}; exit ${{PIPESTATUS[0]}}'
    env = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    result = subprocess.run(["bash", "-c", command], cwd=mixed, env=env, capture_output=True, text=True)
    assert result.returncode == code, result.stderr
    assert len(result.stderr.splitlines()) == code and "Traceback" not in result.stderr
    assert len((mixed / "leaderboard.csv").read_text("utf-8").splitlines()) == 9
    assert (mixed / "leaderboard.html").read_text("utf-8").count("<tr>") == 6
    if end == "> said":
        assert "2.6000 ± 0.1414 (2)" in (mixed / "said").read_text("utf-8")


def test_the_files_are_written_before_the_table_is_printed(mixed, monkeypatch):
    def gone(**_):
        raise BrokenPipeError

    monkeypatch.setattr("gan_lightning.runs.tables.printer", gone)
    with pytest.raises(BrokenPipeError):
        show(rank_runs(mixed, FID, "minimize"), FID, mixed / "out", title="night")
    assert {file.name for file in (mixed / "out").iterdir()} == {"leaderboard.csv", "leaderboard.html"}


def test_a_folder_whose_name_is_no_utf_8_is_written_byte_for_byte(make_run, tmp_path):
    make_run(os.fsdecode(b"a\xff"), fid=2.0)
    show(rank_runs(tmp_path, FID, "minimize"), FID, tmp_path, title=os.fsdecode(b"\xff"))
    for file in "leaderboard.csv", "leaderboard.html":
        assert b"/a\xff" in (tmp_path / file).read_bytes()


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["runs=.", "out=a0/train.log"], "out=a0/train.log is not a folder; choose another place with out=…"),
        (["runs=nowhere"], "runs=nowhere: there is no run below it; name a folder such as outputs"),
        (["runs=.", "metric=metrics/fod"], "metric=metrics/fod: no run has it; did you mean metrics/fid?"),
    ],
)
def test_leaderboard_says_what_is_missing(run_cli: RunCli, mixed, args, line):
    result = run_cli(*args, module="gan_lightning.leaderboard", cwd=mixed)
    assert (result.returncode, result.stderr.strip()) == (1, f"error: {line}")


def test_the_leaderboard_of_a_sweep_stays(compose, mixed):
    for name in ("sweep.log", "leaderboard.csv", "leaderboard.html"):
        (mixed / name).write_text("of the sweep")
    main(compose("metric=metrics/fid", f"runs={mixed}", config_name="leaderboard"))
    assert all((mixed / f"leaderboard.{kind}").read_text() == "of the sweep" for kind in ("csv", "html"))
    assert len(list(csv.reader((mixed / "leaderboard" / "leaderboard.csv").read_text().splitlines()))) == 9


def test_numbers_are_shortened_for_readers():
    from gan_lightning.runs.tables import shorten_numbers

    assert shorten_numbers("lr=0.00044303752452182633 k=3 b=[0.0,0.999] f=1.234567e-05") == (
        "lr=0.000443 k=3 b=[0.0,0.999] f=1.23e-05"
    )


def test_a_picture_that_a_killed_run_has_left_half_written_is_not_shown(make_run, tmp_path):
    run = make_run("a", fid=2.0)
    (run / "samples" / "epoch_0001.png").write_bytes(b"")
    write_html(rank_runs(tmp_path, FID, "minimize"), tmp_path / "board.html", FID, "night")
    assert "data:image" not in (tmp_path / "board.html").read_text()


def test_a_run_that_cannot_be_read_costs_its_own_row_only(make_run, tmp_path, caplog):
    make_run("a", fid=2.0)
    (make_run("b", fid=1.0) / ".hydra" / "config.yaml").write_text("seed: [1,\n")
    (row,) = rank_runs(tmp_path, FID, "minimize")
    assert row.mean == 2.0
    assert "b is left out" in caplog.text


def test_a_trial_of_the_code_is_no_run(make_run, tmp_path):
    make_run("a", fid=2.0)
    file = make_run("b", fid=1.0) / ".hydra" / "config.yaml"
    for trial in (True, 3):
        file.write_text(json.dumps({"seed": 0, "trainer": {"fast_dev_run": trial}}))
        assert [row.mean for row in rank_runs(tmp_path, FID)] == [2.0]


def test_a_run_repeated_is_not_another_seed(make_run, tmp_path):
    make_run("a", seed=0, fid=2.0)
    make_run("b", seed=0, fid=2.0)
    (row,) = rank_runs(tmp_path, FID, "minimize")
    assert row.score == "2.0000"


def test_brackets_are_text_in_the_terminal(make_run, tmp_path):
    from rich.console import Console

    from gan_lightning.runs.tables import terminal_table

    make_run("a", lr="[relu,tanh]", fid=2.0)
    make_run("b", lr=1, error="no such file: [/tmp/x]")
    console = Console(width=160)
    with console.capture() as table:
        console.print(terminal_table(rank_runs(tmp_path, FID, "minimize"), FID))
    assert "optimizer.lr=[relu,tanh]" in table.get() and "[/tmp/x]" in table.get()


# --- Runs of others ----------------------------------------------------------------------------------------

DEEP = "[" * 100_000
METRICS = [
    *("[1, 2]", "5", "null", "true", '"done"', "", "{", "\x00", DEEP),
    *('{"state": 3}', '{"state": "unheard of"}', '{"state": ["done"]}', '{"state": null}', '{"state": {}}'),
    *('{"seconds": null}', '{"seconds": "long"}', '{"seconds": [1]}', '{"seconds": 1e999}', '{"seconds": NaN}'),
    *('{"command": 5}', '{"command": ["python", "x"]}', '{"command": null}', '{"command": {"a": 1}}'),
    *(f'{{"{FID}": {value}}}' for value in ("null", '"2.0"', "[1]", "true", "NaN", "-Infinity", "1" + "0" * 400)),
]
CONFIGS = [
    *("5", "word", "[1, 2]", "null", "", "seed: [1,", "a: ${", "- - -", "\x00", "a: &x [*x]", "%", DEEP),
    *("seed: ???", "seed: [1]", "seed: {a: 1}", "seed: ${nothing}", "seed: 'x'", "1: 2\nseed: 0", "trainer: 5"),
]
TYPED = ["5", "word", "a: 1", "[5]", "[null]", "[[a]]", "- a\n- {b: c}", "[", "", "null", "\x00"]
BROKEN = [
    *(("metrics.json", content) for content in METRICS),
    *((".hydra/config.yaml", content) for content in CONFIGS),
    *((".hydra/overrides.yaml", content) for content in TYPED),
    *(
        (name, content)
        for name in ("metrics.json", ".hydra/config.yaml", "error.txt")
        for content in (b"\xff\xfe", None)
    ),
]


def test_a_run_of_others_is_one_row_or_one_warning_and_the_others_are_ranked(make_run, tmp_path, caplog):
    make_run("good", fid=2.0)
    bad = make_run("bad", lr=5.0, fid=1.0)
    kept = {name: (bad / name).read_bytes() for name in ("metrics.json", ".hydra/config.yaml", ".hydra/overrides.yaml")}
    for name, content in BROKEN:
        file = bad / name
        if content is None:  # a folder of that name
            file.unlink(missing_ok=True)
            file.mkdir()
        else:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        caplog.clear()
        rows = rank_runs(tmp_path, FID, "minimize")
        assert len(rows) + len(caplog.records) == 2, (name, content, rows, caplog.text)
        assert any(row.runs[0].folder.name == "good" and row.mean == 2.0 for row in rows), (name, content)
        assert all("\n" not in record.getMessage() for record in caplog.records)
        write_csv(rows, tmp_path / "leaderboard.csv", FID)
        write_html(rows, tmp_path / "leaderboard.html", FID, "night")
        file.rmdir() if file.is_dir() else file.unlink()
        if name in kept:
            file.write_bytes(kept[name])


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(40), b"GIF89a", None])
def test_a_picture_that_is_none_costs_no_page(make_run, tmp_path, content):
    picture = make_run("a", fid=2.0) / "samples" / "epoch_0001.png"
    picture.unlink()
    picture.mkdir() if content is None else picture.write_bytes(content)
    write_html(rank_runs(tmp_path, FID, "minimize"), tmp_path / "board.html", FID, "night")
    assert "data:image" not in (tmp_path / "board.html").read_text()


def test_a_huge_picture_costs_no_page(make_run, tmp_path, monkeypatch):
    make_run("a", fid=2.0)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    write_html(rank_runs(tmp_path, FID, "minimize"), tmp_path / "board.html", FID, "night")
    assert "data:image" not in (tmp_path / "board.html").read_text()
