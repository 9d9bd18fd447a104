"""Fetch published files into a folder: from the first source that has them, checked, whole or not at all.

Nothing here knows what is in the files. Each time a file is used, its content must have the published checksum, SHA-256
or MD5 (50 ms for MNIST's 55 MB); a truncated or damaged file counts as missing. MD5 is safe for this: one can make two
files with the same MD5, but not a file with a given one.
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

# Names of missing files -> (name, content), plain or gzipped, of those that the source has.
Source = Callable[[list[str]], Iterator[tuple[str, bytes]]]


# Errors of a source: the network, a client, an archive that is cut short.
FAILURES = (OSError, EOFError, HTTPException, subprocess.SubprocessError, tarfile.TarError, zlib.error)


class DataError(ValueError):
    """The data set is missing and could not be fetched. The message is for people."""


@dataclass(frozen=True)
class Files:
    """The files of a data set whose checksums were published.

    Args:
        folders: where the files may be; missing ones are fetched into the first.
        checksums: SHA-256 or MD5 of each file's content, by its path below a folder.
        unzip: whether files may be .gz, on disk and from a source; checksums are of the unzipped content.
    """

    folders: list[Path]
    checksums: Mapping[str, str]
    unzip: bool = True

    @property
    def root(self) -> Path:
        return self.folders[0]

    def fetch(self, sources: Mapping[str, Source]) -> None:
        """Put each missing file into the first folder. With none missing, the folder is not touched.

        Args:
            sources: by the name used in messages; tried in this order.

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
        """The content of a file, if it is the published one."""
        try:
            content = gzip.decompress(raw) if self.unzip and raw.startswith(b"\x1f\x8b") else raw
        except (OSError, EOFError, zlib.error):
            return None
        checksum = self.checksums[name]
        # Not for security: machines that forbid MD5 there (FIPS) allow it here.
        found = hashlib.new(_algorithm(checksum), content, usedforsecurity=False).hexdigest()
        return content if found == checksum else None

    def _save(self, name: str, content: bytes) -> None:
        """The whole file or nothing, even if this process or the machine stops."""
        with writing(self.root), written_whole(self.root / name) as part:
            part.write_bytes(content)

    def _explanation(self, missing: list[str], failures: list[str]) -> str:
        damaged = [name for name in missing if self._candidates(name)]
        some = [f"{name} (damaged)" if name in damaged else name for name in missing[:NAMED]]
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        tried = f" ({'; '.join(failures)})" if failures else ""
        for name, checksum in self.checksums.items():  # for the log file
            state = "damaged" if name in damaged else "missing" if name in missing else "there"
            algorithm = {"md5": "MD5", "sha256": "SHA-256"}[_algorithm(checksum)]
            log.debug("%s  %s %s  (%s)", name, algorithm, checksum, state)
        return (
            f"data.root={self.root} lacks {', '.join(some)}{more}, and no source had them{tried}; "
            f"put them there{', plain or as .gz' if self.unzip else ''}, or set data.root to the folder that holds them"
        )


def from_mirror(url: str, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Files from below a URL, gzipped. Ends with the first failure: a dead mirror costs one time-out."""
    for name in names:
        with _open(f"{url.rstrip('/')}/{name}.gz") as response:
            yield name, response.read()


def from_url(url: str, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """The file at a URL; or the files in the tar archive there, by their paths in it."""
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
    """Turn an error on writing to a folder into a line that names the key of the folder."""
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
    except futures.TimeoutError:  # in Python 3.10 not the built-in one
        raise TimeoutError(f"no answer within {CONNECT_SECONDS} s") from None


def _call(command: list[str], folder: Path) -> None:
    """Run a client in `folder` for at most CLIENT_SECONDS, with all processes that it starts."""
    if not shutil.which(command[0]):
        raise OSError(f"no {command[0]} on this machine")
    output = folder / "output"
    # Its own session, and output to a file: no grandchild outlives the time-out or keeps a pipe open.
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
