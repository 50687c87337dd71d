"""The installed models: one directory each under the cache directory, with a record of its source.

A directory is built under another name and then renamed, so it is complete or absent. The record is `treechat.json`.
The files of a hub model stay in the hub's own cache; its directory holds only the record, which points there.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from treechat import paths
from treechat.errors import ModelError
from treechat.models.files import DEFAULT_MODEL, InstalledModel, ModelFiles, Progress, ProgressCallback
from treechat.models.lock import locked

RECORD = "treechat.json"
_BUILDING = ".building-"
_FETCHING = ".fetching-"


def models_dir() -> Path:
    """The directory of all models. It may be missing."""
    return paths.cache_dir() / "models"


def slug(name: str) -> str:
    """The name as part of a file name."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.") or "model"


def find(directory_name: str) -> ModelFiles | None:
    """The model of that directory, or None if it is missing or incomplete."""
    return _read_record(models_dir() / directory_name)


def record(files: ModelFiles, directory: Path) -> None:
    """Write the record of `files` into a directory."""
    content = {"name": files.name, "source": files.source}
    if files.path != directory:
        content["path"] = str(files.path)
    partial = directory / (RECORD + ".part")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(directory / RECORD)


def _read_record(directory: Path) -> ModelFiles | None:
    try:
        content = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        files = ModelFiles(content["name"], Path(content.get("path", directory)), content["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return files if weights_problem(files.path) is None else None


def weights_problem(directory: Path) -> str | None:
    """The reason why a directory is not a loadable model; None if it has a configuration and all its weights."""
    if not (directory / "config.json").is_file():
        return "it has no config.json"
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError):
            return f"{index.name} is damaged"
        missing = sorted(shard for shard in shards if not (directory / shard).is_file())
        return f"{missing[0]} is missing" if missing else None
    if next(directory.glob("*.safetensors"), None) is not None:
        return None
    if next(directory.glob("*.bin"), None) is not None:
        return "its weights are pickles (.bin), which can run code when loaded"
    return "it has no .safetensors weights"


@contextmanager
def lock_of(directory_name: str, progress: ProgressCallback) -> Iterator[None]:
    """Hold the lock to build that directory. Reports progress while another process holds it."""
    waiting = Progress("fetch", 0, None, "Waiting for another treechat process that prepares this model")
    with locked(models_dir() / ".locks" / directory_name, lambda: progress(waiting)):
        yield


def fetch_dir(directory_name: str) -> Path:
    """The directory of an unfinished fetch. It survives an interruption; `install` removes it. Needs the lock."""
    directory = models_dir() / (_FETCHING + directory_name)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextmanager
def install(directory_name: str, files: ModelFiles) -> Iterator[Path]:
    """Build a directory: yield an empty one, which becomes `files.path` if the block succeeds. Needs the lock.

    A failed build leaves nothing. The next build removes the directory of a killed one.
    """
    final = models_dir() / directory_name
    prefix = f"{_BUILDING}{directory_name}-"
    models_dir().mkdir(parents=True, exist_ok=True)
    for abandoned in models_dir().glob(prefix + "*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    # A new name each time: the process of a killed build may still write to the last one.
    building = Path(tempfile.mkdtemp(prefix=prefix, dir=models_dir()))
    building.chmod(0o755)
    try:
        yield building
        record(replace(files, path=building), building)
        shutil.rmtree(final, ignore_errors=True)
        building.replace(final)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    shutil.rmtree(models_dir() / (_FETCHING + directory_name), ignore_errors=True)


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn an OSError (a full disk, a read-only one) into a ModelError. what: the start of its message."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(what) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise ModelError(
                f"{what}: {error.filename or models_dir()} cannot be written ({error.strerror})",
                "Set TREECHAT_CACHE_DIR to a writable directory",
            ) from error
        if error.errno is not None:
            raise ModelError(f"{what}: {error}") from error
        raise


def disk_full(what: str) -> ModelError:
    """The error for a full disk. what: the start of its message."""
    return ModelError(
        f"{what}: no space left in {models_dir()}",
        "Free some space, or set TREECHAT_CACHE_DIR to a directory on another disk",
    )


def require_space(what: str, num_bytes: int) -> None:
    """Raise ModelError unless the disk of the models has that much free space. what: the start of the message."""
    models_dir().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(models_dir()).free
    if free < num_bytes:
        raise ModelError(
            f"{what}: {models_dir()} needs {num_bytes / 1e9:.1f} GB and has {free / 1e9:.1f} GB free",
            "Free some space, or set TREECHAT_CACHE_DIR to a directory on another disk",
        )


def installed() -> list[InstalledModel]:
    """All models that treechat fetched or converted, sorted by name."""
    found = []
    for directory in models_dir().glob("*") if models_dir().is_dir() else ():
        files = None if directory.name.startswith(".") else _read_record(directory)
        if files is not None:
            size = _size_bytes(files.path)
            found.append(InstalledModel(files.name, files.path, size, files.source, files.name == DEFAULT_MODEL))
    return sorted(found, key=lambda model: model.name)


def _size_bytes(directory: Path) -> int:
    """Bytes of the files below a directory; a link counts as its target."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def delete_directory(path: Path) -> None:
    """Delete the directory of a model. Renames it first, so that no reader finds an incomplete model."""
    renamed = Path(tempfile.mkdtemp(prefix=f"{_BUILDING}{path.name}-", dir=models_dir()))
    path.replace(renamed)
    shutil.rmtree(renamed)


def record_dir(source: str) -> Path:
    """The directory of the record of a hub model."""
    return models_dir() / slug(source)


def delete_record(source: str) -> None:
    """Delete the record of a hub model."""
    shutil.rmtree(record_dir(source), ignore_errors=True)
