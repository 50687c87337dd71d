"""Where treechat keeps things: platform directories, each of which an environment variable overrides."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def _directory(variable: str, default: Path) -> Path:
    chosen = os.environ.get(variable)
    return Path(chosen).expanduser() if chosen else default


def data_dir() -> Path:
    """Conversations: the SQLite database lives here (`TREECHAT_DATA_DIR`)."""
    return _directory("TREECHAT_DATA_DIR", platformdirs.user_data_path("treechat", appauthor=False))


def cache_dir() -> Path:
    """What can be fetched or computed again, such as converted models (`TREECHAT_CACHE_DIR`)."""
    return _directory("TREECHAT_CACHE_DIR", platformdirs.user_cache_path("treechat", appauthor=False))


def config_dir() -> Path:
    """`config.toml` lives here (`TREECHAT_CONFIG_DIR`)."""
    return _directory("TREECHAT_CONFIG_DIR", platformdirs.user_config_path("treechat", appauthor=False))


def default_db() -> Path:
    """The database that is opened where `--db` names no other."""
    return data_dir() / "treechat.db"
