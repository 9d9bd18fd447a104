"""How published files come to a folder: from the first source that has them; checked; whole or not at all.

Nothing here knows what the files hold. A file counts only if its content has the published checksum, SHA-256 or MD5,
each time it is used (MNIST's 55 MB take some 50 ms): a truncated or damaged file is as good as none. MD5 is safe for
that: two files can be made to have the same, but none that has the one of a given file.
"""

import errno
import gzip
import hashlib
import io
import logging
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from threading import Thread
from typing import IO
from urllib.request import urlopen

from filelock import FileLock

from gan_lightning.files import written_whole

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10  # until a mirror answers, and for each wait afterwards
CLIENT_SECONDS = 120  # for one command of a package manager: 30 MB at 2 Mbit/s
NAMED = 2  # missing files in a line
ARCHIVES = (".tar.gz", ".tgz", ".tar")

# Given the names that are missing, yields (name, content), plain or gzipped, of those that it has.
Source = Callable[[list[str]], Iterator[tuple[str, bytes]]]


# What a source may fail with: the network, a client, an archive that is cut short.
FAILURES = (OSError, EOFError, HTTPException, subprocess.SubprocessError, tarfile.TarError, zlib.error)


class DataError(ValueError):
    """The data set is not there and could not be fetched. The message is for people."""


@dataclass(frozen=True)
class Files:
    """The files of a data set, of which the checksums were published.

    Args:
        folders: where they may be; into the first one they are fetched.
        checksums: of each file's content, SHA-256 or MD5, by its path below a folder.
        unzip: whether files may be there, and come, as .gz; checksums are those of what is in them.
    """

    folders: list[Path]
    checksums: Mapping[str, str]
    unzip: bool = True

    @property
    def root(self) -> Path:
        return self.folders[0]

    def fetch(self, sources: Mapping[str, Source]) -> None:
        """Put each file that is missing into the first folder, which is not touched if nothing is.

        Args:
            sources: tried in this order, by the name that messages call them.

        Raises:
            DataError: if the folder cannot be written, the disk is full, or no source has the files.
        """
        if not self._missing():
            return
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / ".lock"):
                missing = self._missing()  # again: another process may have fetched them meanwhile
                failures = []
                for label, source in sources.items():
                    if not missing:
                        break
                    wanted = list(missing)
                    try:
                        for name, raw in source(wanted):
                            content = self._intact(name, raw)
                            if content is None:
                                failures.append(f"{label}: its {name} is not the published one")
                            else:
                                self._save(name, content)
                                missing.remove(name)
                    except FAILURES as error:
                        failures.append(f"{label}: {error}")
                    if len(missing) < len(wanted):
                        log.info("Fetched %d files from %s into %s", len(wanted) - len(missing), label, self.root)
        if missing:
            raise DataError(self._explanation(missing, failures))

    def read(self, name: str) -> bytes:
        """The content of the first `name` (or `name`.gz) in the folders that is the published one.

        Raises:
            DataError: if there is none.
        """
        content = self._find(name)
        if content is None:
            raise DataError(f"data.root={self.root} holds no intact {name}; prepare_data() fetches it")
        return content

    def _find(self, name: str) -> bytes | None:
        for path in self._candidates(name):
            content = self._intact(name, path.read_bytes())
            if content is not None:
                return content
        return None

    def _candidates(self, name: str) -> list[Path]:
        suffixes = ("", ".gz") if self.unzip else ("",)
        paths = [folder / (name + suffix) for folder in self.folders for suffix in suffixes]
        return [path for path in paths if path.is_file() and os.access(path, os.R_OK)]

    def _missing(self) -> list[str]:
        return [name for name in self.checksums if self._find(name) is None]

    def _intact(self, name: str, raw: bytes) -> bytes | None:
        """What is in a file, if it is the published content."""
        try:
            content = gzip.decompress(raw) if self.unzip and raw.startswith(b"\x1f\x8b") else raw
        except (OSError, EOFError, zlib.error):
            return None
        checksum = self.checksums[name]
        # Nothing is kept secret by it: a machine that forbids MD5 for that (FIPS) allows it here.
        found = hashlib.new(_algorithm(checksum), content, usedforsecurity=False).hexdigest()
        return content if found == checksum else None

    def _save(self, name: str, content: bytes) -> None:
        """All of the file or none of it, whenever this process or the machine stops."""
        with writing(self.root), written_whole(self.root / name) as part:
            part.write_bytes(content)

    def _explanation(self, missing: list[str], failures: list[str]) -> str:
        damaged = [name for name in missing if self._candidates(name)]
        some = [f"{name} (damaged)" if name in damaged else name for name in missing[:NAMED]]
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        tried = f" ({'; '.join(failures)})" if failures else ""
        for name, checksum in self.checksums.items():  # in the log file, for who looks for them
            state = "damaged" if name in damaged else "missing" if name in missing else "there"
            algorithm = {"md5": "MD5", "sha256": "SHA-256"}[_algorithm(checksum)]
            log.debug("%s  %s %s  (%s)", name, algorithm, checksum, state)
        return (
            f"data.root={self.root} lacks {', '.join(some)}{more}, and no source had them{tried}; "
            f"put them there{', plain or as .gz' if self.unzip else ''}, or set data.root to the folder that holds them"
        )


def from_mirror(url: str, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Files from below a URL, gzipped. The first failure ends it: a dead mirror costs one time-out."""
    for name in names:
        with _open(f"{url.rstrip('/')}/{name}.gz") as response:
            yield name, response.read()


def from_url(url: str, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """The file of a URL; or those that a tar archive holds, by their paths in it."""
    own_name = url.rpartition("/")[2]
    is_archive = own_name.endswith(ARCHIVES)
    if not is_archive and own_name not in names:
        return
    with _open(url) as response:
        log.info("Fetching %s", url)
        content = response.read()
    if is_archive:
        yield from _members(io.BytesIO(content), names)
    else:
        yield own_name, content


def from_archive(path: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Files from a tar archive on the disk, by their paths in it."""
    if not path.is_file():
        raise FileNotFoundError("it is not there")
    with path.open("rb") as file:
        yield from _members(file, names)


def from_npm(package: str, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Files from a package of the npm registry, through the npm client."""
    with _temporary_folder() as folder:
        _call(["npm", "pack", "--ignore-scripts", package], folder)
        with tarfile.open(next(folder.glob("*.tgz"))) as archive:
            for member in archive:
                name = _published_name(member.name)
                # Read, never extracted: a path inside the archive cannot lead anywhere.
                if name in names and (file := archive.extractfile(member)):
                    yield name, file.read()


def from_debian(package: str, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Files from a Debian package. Nothing is installed, no root needed."""
    with _temporary_folder() as folder:
        _call(["apt-get", "download", package], folder)
        _call(["dpkg-deb", "--extract", str(next(folder.glob("*.deb"))), "files"], folder)
        for path in sorted((folder / "files").rglob("*")):
            name = _published_name(path.name)
            if name in names and path.is_file() and not path.is_symlink():
                yield name, path.read_bytes()


def _members(file: IO[bytes], names: list[str]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=file) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            # Read, never extracted: a path inside the archive cannot lead anywhere.
            if name in names and (content := archive.extractfile(member)):
                yield name, content.read()


def _published_name(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".gz")


def _algorithm(checksum: str) -> str:
    return "md5" if len(checksum) == 32 else "sha256"


@contextmanager
def writing(folder: Path, key: str = "data.root") -> Iterator[None]:
    """Turn what keeps a folder from being written to into a line that names the key that sets it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem = "the disk is full; make room"
        else:
            problem = f"the data set is not there and cannot be written ({error.strerror}); mend that"
        raise DataError(f"{key}={folder}: {problem}, or set {key} to another folder") from error


def _open(url: str) -> HTTPResponse:
    """urlopen, but within CONNECT_SECONDS altogether.

    Its own time-out starts anew for each address of a host (one mirror has eight) and leaves out DNS.
    """
    answer: futures.Future[HTTPResponse] = futures.Future()

    def connect() -> None:
        try:
            answer.set_result(urlopen(url, timeout=CONNECT_SECONDS))
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=connect, daemon=True).start()
    try:
        return answer.result(timeout=CONNECT_SECONDS)
    except futures.TimeoutError:  # Python 3.10 has it apart from the built-in one
        raise TimeoutError(f"no answer within {CONNECT_SECONDS} s") from None


def _call(command: list[str], folder: Path) -> None:
    """Run a client in `folder`; no longer than CLIENT_SECONDS, whatever processes it has started."""
    if not shutil.which(command[0]):
        raise OSError(f"no {command[0]} on this machine")
    output = folder / "output"
    # A session of its own, output to a file: no grandchild outlives the time-out or holds a pipe open.
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
        try:
            status = process.wait(CLIENT_SECONDS)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{command[0]} did not end within {CLIENT_SECONDS} s") from None
        finally:
            if process.poll() is None:  # the time-out, or Ctrl-C
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if status:
        lines = [
            line.strip() for line in output.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
        errors = [line for line in lines if line.startswith(("npm error", "npm ERR!", "E:", "dpkg"))] or lines
        raise OSError(f"{command[0]} failed: {'; '.join(errors[:2]) or f'exit code {status}'}")


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)
