"""What a sweep says while it runs."""

import logging

import pytest

from gan_lightning.runs.state import RunState
from gan_lightning.sweeps.board import Board, last_line
from gan_lightning.sweeps.job import Job

LOG = """\
2026-01-01 10:00:00,000 INFO    gan_lightning.callbacks.console: epoch 1, iteration 200 of 400: D loss 0.5, G loss 1.2
2026-01-01 10:00:01,000 INFO    lightning.pytorch.utilities.rank_zero: `Trainer.fit` stopped
2026-01-01 10:00:01,000 DEBUG   gan_lightning.cli.command: not for people
"""


@pytest.fixture
def job(tmp_path):
    return lambda number: Job(number, tmp_path / str(number), [f"seed={number}"], 1, lambda: None)


def test_a_worker_shows_the_last_thing_its_run_has_said(tmp_path):
    assert last_line(tmp_path) == "starts"
    (tmp_path / "train.log").write_text("x" * 10_000 + "\n" + LOG)
    assert last_line(tmp_path) == "epoch 1, iteration 200 of 400: D loss 0.5, G loss 1.2"


@pytest.mark.parametrize(
    ("metric", "direction", "best"),
    [
        *(("metrics/fid", direction, "best so far 2.0000, job 1") for direction in ("minimize", None)),
        *(
            ("metrics/fid", "maximize", "best so far 3.0000, job 0"),
            ("metrics/recall", None, "best so far 3.0000, job 0"),
        ),
    ],
)
def test_each_end_is_told_with_the_best_so_far(job, caplog, metric, direction, best):
    caplog.set_level(logging.INFO)
    board = Board(2, metric, direction)
    for number in (0, 1):
        board.started(number, job(number))
    assert "worker 2: job 1, starts" in board._lines().plain
    for number, fid in enumerate((3.0, 2.0)):
        board.ended(number, job(number), RunState("done", "", {metric: fid}), 75)
    assert caplog.messages[-1] == f"job 1: done after 1 min 15 s; {metric} 2.0000; {best}"
    board.started(0, job(2))
    board.ended(0, job(2), RunState("failed", "killed by SIGKILL", {}), 5)
    assert caplog.messages[-1] == f"job 2: failed after 5 s; killed by SIGKILL; {best}"
    assert caplog.records[-1].levelname == "WARNING"
    assert best in board._lines().plain


def test_a_pruned_run_is_not_the_best(job, caplog):
    board = Board(1, "metrics/fid", "minimize")
    board.kept(job(0), RunState("pruned", "", {"metrics/fid": 1.0}))
    assert board.best is None
