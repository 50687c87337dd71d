"""Fetch models of the Hugging Face hub: safetensors and the tokenizer's files, never pickles and never code.

The files stay in the hub's own cache, which is shared with other programs.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from treechat.errors import ModelError, Offline
from treechat.models.files import Progress, ProgressCallback
from treechat.models.library_output import silence_libraries
from treechat.models.registry import weights_problem

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
ALLOW_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.model", "merges.txt", "vocab.txt"]
IGNORE_PATTERNS = ["*/*", "*.bin", "*.pt", "*.pth", "*.py", "*.pkl", "consolidated*"]
"""Sub-folders (other formats, checkpoints) and all files that can run code."""

_LOOKUP_TIMEOUT_S = 15.0


def cached_snapshot(hub_id: str) -> Path | None:
    """The directory of a complete hub model on this machine, or None. Does not use the network."""
    from huggingface_hub import snapshot_download

    try:
        found = Path(
            snapshot_download(
                hub_id, allow_patterns=ALLOW_PATTERNS, ignore_patterns=IGNORE_PATTERNS, local_files_only=True
            )
        )
    except (OSError, ValueError):
        return None
    return found if weights_problem(found) is None else None


def fetch_snapshot(hub_id: str, progress: ProgressCallback) -> Path:
    """Fetch the missing files of a hub model and return its directory. Continues an interrupted fetch.

    Raises Offline if the hub cannot be reached, and ModelError if the model does not exist, needs a login, or has no
    safetensors.
    """
    cached = cached_snapshot(hub_id)
    if cached is not None:
        return cached
    from huggingface_hub import HfApi, snapshot_download

    silence_libraries()
    progress(Progress("fetch", 0, None, f"Looking up {hub_id}"))
    with hub_errors(hub_id):
        info = HfApi().model_info(hub_id, timeout=_LOOKUP_TIMEOUT_S)
        names = [file.rfilename for file in info.siblings or ()]
        check_names(hub_id, names)
        found = Path(
            snapshot_download(
                hub_id,
                allow_patterns=ALLOW_PATTERNS,
                ignore_patterns=IGNORE_PATTERNS,
                tqdm_class=_reporting_bar(hub_id, progress),
            )
        )
    problem = weights_problem(found)
    if problem:
        raise ModelError(f"{hub_id} cannot be used: {problem}")
    return found


def cached_gguf(hub_id: str, filename: str) -> Path | None:
    """The path of a GGUF of a hub repository on this machine, or None. Does not use the network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub_id, filename)
    return Path(found) if isinstance(found, str) else None


def fetch_gguf(hub_id: str, filename: str, progress: ProgressCallback) -> Path:
    """Fetch one GGUF file of a hub repository, unless it is on this machine. Raises as `fetch_snapshot`."""
    if cached := cached_gguf(hub_id, filename):
        return cached
    from huggingface_hub import HfApi, hf_hub_download

    silence_libraries()
    progress(Progress("fetch", 0, None, f"Looking up {hub_id}"))
    with hub_errors(hub_id):
        # Without a network this request fails at once; the download retries for half a minute.
        HfApi().model_info(hub_id, timeout=_LOOKUP_TIMEOUT_S)
        return Path(hf_hub_download(hub_id, filename, tqdm_class=_reporting_bar(hub_id, progress)))


def check_names(hub_id: str, names: list[str]) -> None:
    """Raise ModelError, before the fetch, for a repository without usable weights."""
    top = [name for name in names if "/" not in name]
    if any(name.endswith(".safetensors") for name in top):
        return
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs:
        raise ModelError(f"{hub_id} holds GGUF files only", f"Pass one of them: {hub_id}/{ggufs[0]}")
    if any(name.endswith((".bin", ".pt", ".pth")) for name in top):
        raise ModelError(
            f"{hub_id} has its weights only as pickles, which can run code when loaded",
            "Choose a repository with .safetensors files",
        )
    raise ModelError(f"{hub_id} has no .safetensors weights", "Choose a repository of a text-generation model")


@contextmanager
def hub_errors(hub_id: str) -> Iterator[None]:
    """Turn the errors of huggingface_hub into ours."""
    from huggingface_hub import errors

    offline_hint = "Connect once, or pass --model with a directory or a .gguf file"
    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{hub_id} is gated", f"Accept its terms at huggingface.co/{hub_id}, then run `hf auth login`"
        ) from error
    except errors.RemoteEntryNotFoundError as error:
        raise ModelError(f"{hub_id} has no such file", f"See huggingface.co/{hub_id}/tree/main") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise ModelError(
            f"the hub has no model {hub_id}, or it is private", "Check the spelling, or run `hf auth login`"
        ) from error
    except errors.HFValidationError as error:
        raise ModelError(f"{hub_id} is not a hub id") from error
    except errors.OfflineModeIsEnabled as error:
        raise Offline(
            f"{hub_id} has to be fetched, and HF_HUB_OFFLINE forbids it", "Unset it, or pass --model with a directory"
        ) from error
    except errors.HfHubHTTPError as error:
        raise ModelError(f"the hub refuses {hub_id}: {str(error).splitlines()[0]}") from error
    # The remaining errors of the HTTP client (httpx or its successor, by version): there was no answer.
    except (errors.LocalEntryNotFoundError, errors.HTTPError, ConnectionError) as error:  # type: ignore[attr-defined]
        raise Offline(f"{hub_id} has to be fetched, and the hub cannot be reached", offline_hint) from error


def _reporting_bar(hub_id: str, progress: ProgressCallback) -> Any:
    """A tqdm class that draws nothing and reports its bytes; the hub's downloads accept only a tqdm."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class ReportingBar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            kwargs |= {"file": io.StringIO(), "disable": False}
            super().__init__(*args, **kwargs)

        def update(self, n: float | None = 1) -> Any:
            result = super().update(n)
            if self.unit == "B":
                total = int(self.total) if self.total else None
                progress(Progress("fetch", int(self.n), total, f"Fetching {hub_id}"))
            return result

    return ReportingBar


def delete_snapshot(path: Path) -> int:
    """Delete a snapshot from the hub's cache, with the files that only it uses; returns the bytes freed."""
    from huggingface_hub import scan_cache_dir

    strategy = scan_cache_dir().delete_revisions(os.path.basename(path))  # noqa: PTH119
    strategy.execute()
    return int(strategy.expected_freed_size)
