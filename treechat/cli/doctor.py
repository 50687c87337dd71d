"""`doctor`: report on this machine and the database, with the problems found."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from treechat import __version__
from treechat.cli.options import Session, db_option, json_option, model_option, pass_session
from treechat.cli.output import plural, print_json, say, size
from treechat.errors import StoreError, TreechatError

_PACKAGES = ("torch", "transformers", "textual", "sqlite-utils", "click", "triton")
LOW_DISK_BYTES = 1_000_000_000
"""Warn below this. The default model takes about half of it."""

_KV_TOKENS = 256
"""KV slots for the load: enough for the checks at load time."""


@click.command()
@db_option
@model_option
@json_option
@click.option(
    "--backup",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Only copy the database to FILE and check the copy.",
)
@pass_session
@click.pass_context
def doctor(ctx: click.Context, session: Session, as_json: bool, backup: Path | None) -> None:
    """Check this machine and the database.

    Reports versions, device, database, models, disk and terminal. With -m it loads that model and reports which forward
    runs and why. Removes the messages of interrupted imports. The exit status is 1 if there is a problem.

    With --backup it only copies the database. The copy includes deleted messages and undo history. treechat may run
    meanwhile. --db opens the copy.
    """
    if backup is not None:
        _back_up(session, backup, as_json)
        return
    problems: list[str] = []
    facts: dict[str, Any] = {
        "treechat": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": _device(problems),
        "config": _config(session, problems),
        "database": _database(session, problems),
        "models": _models(problems),
        "disk": _disk(problems),
        "terminal": _terminal(),
    }
    if session.model is not None:
        facts["forward"] = _forward(session.model, problems)
    if as_json:
        print_json(facts | {"problems": problems})
    else:
        _print(facts, problems)
    if problems:
        ctx.exit(1)


def _back_up(session: Session, target: Path, as_json: bool) -> None:
    path = session.db_path
    if not path.exists():
        raise StoreError(f"There is no database at {path}", "Choose another file with --db")
    session.store.back_up(target)
    num_bytes, num = target.stat().st_size, len(session.store.conversations())
    if as_json:
        print_json({"database": str(path), "backup": str(target), "size_bytes": num_bytes, "conversations": num})
    else:
        say(f"{target} is a copy of {path}: {plural(num, 'conversation')}, {size(num_bytes)}.")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _device(problems: list[str]) -> dict[str, Any]:
    try:
        import torch
    except (ImportError, OSError) as error:
        problems.append(f"torch cannot be loaded: {error}")
        return {}
    facts: dict[str, Any] = {"name": "cpu", "threads": torch.get_num_threads(), "cores": os.cpu_count()}
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        facts |= {"name": torch.cuda.get_device_name(), "memory_free": size(free), "memory": size(total)}
    return facts


def _config(session: Session, problems: list[str]) -> dict[str, Any]:
    from treechat.config import config_path

    path = config_path()
    try:
        assert session.config is not None
    except TreechatError as error:
        problems.append(str(error))
    return {"path": str(path), "exists": path.exists()}


def _database(session: Session, problems: list[str]) -> dict[str, Any]:
    try:
        path = session.db_path
        if not path.exists():
            return {"path": str(path), "exists": False}
        if num := session.store.drop_dead_imports():
            say(f"Removed {plural(num, 'message')} of an interrupted import.")
        found = session.store.verify()
        conversations = len(session.store.conversations())
    except TreechatError as error:
        problems.append(str(error))
        return {}
    problems += [f"database: {problem}" for problem in found]
    return {"path": str(path), "exists": True, "size": size(path.stat().st_size), "conversations": conversations}


def _models(problems: list[str]) -> dict[str, Any]:
    from treechat.models import installed
    from treechat.paths import cache_dir

    try:
        found = installed()
    except TreechatError as error:
        problems.append(str(error))
        found = []
    return {"path": str(cache_dir()), "installed": [model.name for model in found]}


def _forward(spec: str, problems: list[str]) -> dict[str, str]:
    """Which forward runs (the fused one or that of transformers), and why."""
    from treechat.chat.model.load import load_chat_model
    from treechat_engine import EngineConfig

    try:
        model = load_chat_model(spec, engine_config=EngineConfig(kv_tokens=_KV_TOKENS))
    except TreechatError as error:
        problems.append(str(error))
        return {}
    stats = model.engine.stats()
    model.close()
    return {"name": stats.forward, "reason": stats.forward_reason}


def _disk(problems: list[str]) -> dict[str, str]:
    from treechat.paths import cache_dir, data_dir

    free = {}
    for name, path in (("data", data_dir()), ("cache", cache_dir())):
        num_bytes = shutil.disk_usage(_existing_dir(path)).free
        free[name] = f"{size(num_bytes)} free"
        if num_bytes < LOW_DISK_BYTES:
            problems.append(f"only {size(num_bytes)} free in {path}")
    return free


def _existing_dir(path: Path) -> Path:
    """The path, or the nearest existing directory above it."""
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())


def _terminal() -> dict[str, Any]:
    columns, lines = shutil.get_terminal_size()
    return {
        "is_terminal": sys.stdout.isatty(),
        "TERM": os.environ.get("TERM", ""),
        "COLORTERM": os.environ.get("COLORTERM", ""),
        "size": f"{columns}x{lines}",
        "encoding": sys.stdout.encoding,
    }


def _print(facts: dict[str, Any], problems: list[str]) -> None:
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
        click.echo(f"{name:<10} {value}")
    for problem in problems:
        click.echo(f"problem    {problem}")
    if not problems:
        click.echo("No problems found.")


def _shown(item: Any) -> str:
    if isinstance(item, list):
        return " ".join(item) or "none"
    if item is None or isinstance(item, bool):
        return {True: "yes", False: "no", None: "absent"}[item]
    return str(item)
