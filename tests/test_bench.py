"""`make bench`: does it run, and does it count rightly? What it measures is not judged here."""

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "throughput.py"


@pytest.fixture(scope="module")
def throughput():
    spec = importlib.util.spec_from_file_location("throughput", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("model", ["mlp", "dcgan"])
@pytest.mark.parametrize("name", ["tutorial", "by hand"])
def test_plain_loops_train_on_the_projects_images(throughput, idx_data, name, model, monkeypatch):
    monkeypatch.setattr(throughput, "BATCH_SIZE", 16)
    root, images = throughput.load_images(idx_data)
    assert images.shape == (512, 1, 28, 28) and images.dtype == torch.uint8
    assert list(itertools.islice(throughput.LOOPS[name](model, root, images), 3)) == [1, 2, 3]


def test_clock_runs_from_warmup_to_end(throughput, monkeypatch, tmp_path):
    monkeypatch.setattr(throughput, "now", lambda: 10.0 * iteration)
    monkeypatch.setattr(throughput, "ON_GPU", False)
    clock = throughput.Clock(warmup=2, iterations=5, path=tmp_path / "measured")
    ended = []
    for iteration in range(1, 8):
        ended.append(clock.tick(iteration))
    assert ended == [False] * 6 + [True]
    assert json.loads((tmp_path / "measured").read_text()) == {"seconds": 50.0}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's, of a module as tutorials write it
def test_lightnings_loop_trains_until_the_clock_ends_it(throughput, idx_data, tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "BATCH_SIZE", 16)
    monkeypatch.setattr(throughput.os, "cpu_count", lambda: 2)  # one worker process
    monkeypatch.setattr(throughput, "ON_GPU", False)
    throughput.run_worker("lightning", "mlp", idx_data, warmup=1, iterations=2, path=tmp_path / "measured")
    assert json.loads((tmp_path / "measured").read_text())["seconds"] > 0


def test_ratio_is_the_median_of_the_ratios_within_rounds(throughput):
    # The machine is half as fast in the second round: no ratio suffers.
    speeds = {
        "tutorial": [100, 50, 100],
        "lightning": [80, 40, 80],
        "by hand": [250, 125, 250],
        "project": [240, 120, 230],
        "default": [90, 45, 90],
    }
    results = {
        name: [{"images_per_second": speed, "peak_memory_gb": 1.0 + speed / 1000} for speed in each]
        for name, each in speeds.items()
    }
    summary = throughput.summarize("mlp", results)
    assert summary["images_per_second"]["project"] == 230
    assert summary["ratios"]["project / tutorial"] == 2.4
    assert summary["ratios"]["project / by hand"] == 0.96
    assert summary["peak_memory_gb"]["project"] == 1.24
    met = {target["target"]: target["met"] for target in summary["targets"]}
    assert met == {
        "project / tutorial": True,
        "project / by hand": True,
        "default / tutorial": False,
        "project, peak GB": True,
        "default, peak GB": True,
    }


def test_the_cost_of_scores_is_their_share_of_the_epochs_between_two(throughput, monkeypatch):
    ran = []
    monkeypatch.setattr(throughput, "time_process", lambda command, *_: (ran.append(command), (6.0, 1.5))[1])
    cost = throughput.measure_scores(468 * 128 / 14, ["metrics.num_samples=5000"])  # an epoch takes 14 s
    assert cost["share"] == pytest.approx(6 / 140) and cost["target"]["met"]
    assert (cost["num_samples"], cost["epochs_between"], cost["seconds"]) == (5000, 10, 6)
    assert not any("metrics=none" in word or "limit_val_batches" in word for word in ran[0])
    assert not throughput.measure_scores(468 * 128 / 5, [])["target"]["met"]  # 6 s of 50


FEW = ["metrics.num_samples=600", "metrics.cache=null"]


@pytest.mark.slow
def test_a_run_of_the_default_gives_the_seconds_of_its_evaluation(throughput, idx_data):
    cost = throughput.measure_scores(4000.0, [*idx_data, *FEW])
    assert cost["seconds"] > 0 and cost["num_samples"] == 600


@pytest.mark.slow
def test_quick_bench_prints_a_table_and_writes_json(idx_data, tmp_path):
    out = tmp_path / "bench.json"
    bench = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--out", out, *idx_data],
        env={**os.environ, "HOME": str(tmp_path)},  # where the reference is kept
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert bench.returncode == 0, bench.stderr
    assert "images/s" in bench.stdout and "project" in bench.stdout
    results = json.loads(out.read_text())["results"]
    assert "scores: 5,000 samples in " in bench.stdout and "of the 10 epochs between two evaluations" in bench.stdout
    assert results[0]["scores"]["seconds"] > 0 and "scores" not in results[1]
    for result, contestants in zip(results, (5, 4), strict=True):
        assert len(result["images_per_second"]) == contestants
        assert all(speed > 0 for speed in result["images_per_second"].values())
        assert result["peak_memory_gb"]["project"] < 2


def test_wrong_flag_is_refused(throughput, capsys):
    with pytest.raises(SystemExit, match="2"):
        throughput.main(["--fast"])
    assert "--fast" in capsys.readouterr().err
