"""What every test file may use. The network is closed, threads are few, the real conf/ is composed and shrunk."""

import functools
import io
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; the same sums in the same order everywhere
os.environ["MKL_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "HYDRA_FULL_ERROR")

Overrides = list[str]
RunCli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that connects to another machine fails, unless it is marked `network`."""
    if request.node.get_closest_marker("network"):
        return
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"  # a path: a local socket
        if host not in ("localhost", "::1", "0.0.0.0") and not str(host).startswith("127."):
            pytest.fail(f"the test connects to {address}; mark it `network` if it has to")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test inherits a launcher's variables, neither from the shell nor from a DDP run of the test before."""
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    yield
    for name in LAUNCHER:
        os.environ.pop(name, None)


@pytest.fixture
def run_cli(tmp_path: Path) -> RunCli:
    """Run a command as a user does: `run_cli("seed=1", module="gan_lightning.sample")`, in an empty folder."""

    def run(
        *args: str,
        module: str = "gan_lightning",
        timeout: float = 600,
        env: dict[str, str] | None = None,
        cwd: Path = tmp_path,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *args],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture(scope="session")
def idx_data(tmp_path_factory: pytest.TempPathFactory) -> Overrides:
    """Overrides that point `data` to 512 small learnable images in real IDX files, 640 to test on."""
    import idx_files

    return idx_files.write(tmp_path_factory.mktemp("idx"))


@pytest.fixture(scope="module")
def small_data(tmp_path_factory: pytest.TempPathFactory, idx_data: Overrides) -> Callable[[Overrides], Overrides]:
    """`small_data(overrides)` -> those that point the data set which they choose to a small one of its format."""
    import cifar_files
    import picture_files

    kinds = {"cifar10": cifar_files, "image_folder": picture_files}
    written: dict[str, Overrides] = {}

    def overrides_for(chosen: Overrides) -> Overrides:
        for kind, files in kinds.items():
            if any(kind in override for override in chosen):  # data=cifar10, experiment=dcgan_cifar10
                if kind not in written:
                    written[kind] = files.write(tmp_path_factory.mktemp(kind) / "files")
                return written[kind]
        return idx_data

    return overrides_for


@pytest.fixture
def compose(tmp_path: Path, small_data: Callable[[Overrides], Overrides]) -> Callable[..., Any]:
    """Compose a real config, point it to a small data set and an empty run folder: `compose("model=dcgan")`."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    from gan_lightning.files import conf_dir

    def run(*overrides: str, config_name: str = "train", small: bool = True, folder: Path = tmp_path) -> Any:
        chosen = list(overrides)
        shrink = ["trainer=debug", "metrics=none", *small_data(chosen)] if small and config_name == "train" else []
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = hydra.compose(config_name, [*shrink, *overrides], return_hydra_config=True)
        config.hydra.runtime.output_dir = str(folder)
        HydraConfig.instance().set_config(config)  # for ${hydra:...}
        with open_dict(config):
            del config["hydra"]
        return config

    return run


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], io.StringIO]:
    """`screen(terminal)` -> what is shown from then on, by rich, on the error stream: a terminal or not."""

    def watch(terminal: bool) -> io.StringIO:
        import rich.console

        shown = io.StringIO()
        make = functools.partial(rich.console.Console, file=shown, force_terminal=terminal, force_interactive=terminal)
        monkeypatch.setattr(rich.console, "Console", lambda stderr=True: make())
        return shown

    return watch


@pytest.fixture(scope="session")
def copy_of_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of a new virtual environment that sees the packages of this one, but not this checkout."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"], check=True, capture_output=True, text=True
    ).stdout.strip()
    here = Path(next(path for path in sys.path if path.endswith("site-packages")))
    # Links, not a .pth to the folder: that would show the copy of conf/ which an editable install leaves there.
    for entry in here.iterdir():
        if (
            not entry.name.startswith(("gan_lightning", "_gan_lightning", "_editable_impl_gan"))
            and entry.suffix != ".pth"
        ):
            target = Path(site) / entry.name
            if not target.exists():
                target.symlink_to(entry)
    return python
