"""Every error that a user can meet, in one tree.

TreechatError            message says what happened; `hint` says what to do
├── UsageError           what was asked for makes no sense (exit status 2)
│   ├── ConfigError      config.toml: unknown key, wrong type, not TOML
│   └── NodeNotFound     no node, or several, answer to that name
├── StoreError           the database cannot be opened, read or written
├── ModelError           the model cannot be found, fetched, read or run
│   ├── Offline          it would have to be fetched, and there is no network
│   └── UnsupportedModel the engine refuses this architecture
├── GenerationError      a request failed; what was generated before is kept
└── FormatError          a file to import is not what it claims to be
"""

from __future__ import annotations


class TreechatError(Exception):
    """Base of all errors shown to the user. `hint` is one sentence that says what to do, or empty."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class UsageError(TreechatError):
    """What was asked for makes no sense."""


class ConfigError(UsageError):
    """The configuration file has an unknown key, a wrong type, or is not TOML."""


class NodeNotFound(UsageError):
    """No node, or more than one, answers to a name."""


class StoreError(TreechatError):
    """The database cannot be opened, read or written."""


class ModelError(TreechatError):
    """The model cannot be found, fetched, read or run."""


class Offline(ModelError):
    """Something would have to be fetched and the network cannot be reached."""


class UnsupportedModel(ModelError):
    """The engine refuses this architecture."""


class GenerationError(TreechatError):
    """A request failed; what was generated before it failed is kept."""


class FormatError(TreechatError):
    """A file to import is not what it claims to be."""
