"""Every error that the user can get, in one tree.

TreechatError            `message` describes the error; `hint` says what to do
├── UsageError           the request is invalid (exit status 2)
│   ├── ConfigError      config.toml: unknown key, wrong type, not TOML
│   └── NodeNotFound     no node, or more than one, matches a name
├── StoreError           the database cannot be opened, read or written
├── ModelError           the model cannot be found, fetched, read or run
│   ├── Offline          a download is needed, and the network cannot be reached
│   └── UnsupportedModel the engine does not support this architecture
├── GenerationError      a request failed; the text generated before is kept
└── FormatError          a file to import does not have the format that it claims
"""

from __future__ import annotations


class TreechatError(Exception):
    """Base of all errors shown to the user. `hint` is one sentence that says what to do; it may be empty."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class UsageError(TreechatError):
    """The request is invalid."""


class ConfigError(UsageError):
    """The configuration file has an unknown key, a wrong type, or is not TOML."""


class NodeNotFound(UsageError):
    """No node, or more than one, matches a name."""


class StoreError(TreechatError):
    """The database cannot be opened, read or written."""


class ModelError(TreechatError):
    """The model cannot be found, fetched, read or run."""


class Offline(ModelError):
    """A download is needed, and the network cannot be reached."""


class UnsupportedModel(ModelError):
    """The engine does not support this architecture."""


class GenerationError(TreechatError):
    """A request failed; the text generated before is kept."""


class FormatError(TreechatError):
    """A file to import does not have the format that it claims."""
