"""The directories of treechat: those of the platform, unless an environment variable names another."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def _directory(variable: str, default: Path) -> Path:
    chosen = os.environ.get(variable)
    return Path(chosen).expanduser() if chosen else default


def data_dir() -> Path:
    """Return the directory of the SQLite database (`TREECHAT_DATA_DIR`)."""
    return _directory("TREECHAT_DATA_DIR", platformdirs.user_data_path("treechat", appauthor=False))


def cache_dir() -> Path:
    """Return the directory of files that can be fetched or computed again (`TREECHAT_CACHE_DIR`)."""
    return _directory("TREECHAT_CACHE_DIR", platformdirs.user_cache_path("treechat", appauthor=False))


def config_dir() -> Path:
    """Return the directory of `config.toml` (`TREECHAT_CONFIG_DIR`)."""
    return _directory("TREECHAT_CONFIG_DIR", platformdirs.user_config_path("treechat", appauthor=False))


def default_db() -> Path:
    """Return the database that is used without `--db`."""
    return data_dir() / "treechat.db"
