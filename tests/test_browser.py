"""The dashboard, looked at with a real browser."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium; Debian: apt-get install chromium"),
]


@pytest.fixture
def tensorboard():
    """The address of a TensorBoard on a folder; it ends with the test."""
    processes = []

    def start(folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        address = f"http://127.0.0.1:{port}/"
        for _ in range(120):
            try:
                # Wait for the first reading of the folder, not just for the server.
                if folder_is_read(address):
                    return address
            except OSError:
                pass
            time.sleep(0.5)
        pytest.fail("TensorBoard did not start within a minute")

    def folder_is_read(address):
        runs = urllib.request.urlopen(f"{address}data/runs", timeout=5).read()
        return runs.strip() != b"[]"

    yield start
    for process in processes:
        process.kill()
        process.wait()


def look(address, tab, folder):
    """A screenshot as (H, W, 3) numbers, without TensorBoard's own bar on top and column on the left."""
    file = folder / f"{tab}.png"
    subprocess.run(
        [BROWSER, *QUIET, f"--user-data-dir={folder / tab}", "--window-size=1500,1000", "--virtual-time-budget=30000",
         f"--screenshot={file}", f"{address}#{tab}"],
        check=True, capture_output=True, timeout=180,
    )  # fmt: skip
    return np.asarray(Image.open(file).convert("RGB")).astype(int)[70:, 360:]


def coloured(picture):
    """Pixels that are neither grey nor nearly so: curves, and the names of runs."""
    return int((picture.max(axis=2) - picture.min(axis=2) > 60).sum())


def test_dashboard_shows_curves_and_pictures_in_a_browser(run_cli, idx_data, tensorboard, tmp_path):
    result = run_cli("trainer=debug", "metrics=none", *idx_data, "hydra.run.dir=runs/one")
    assert result.returncode == 0, result.stderr
    address = tensorboard(tmp_path / "runs")

    curves = look(address, "custom_scalars", tmp_path)
    assert coloured(curves[:400]) > 500, "no curve in the first charts"

    pictures = look(address, "images", tmp_path)
    assert (pictures.max(axis=2) < 200).mean() > 0.15, "no grids of images on the white page"
