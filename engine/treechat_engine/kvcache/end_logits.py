"""Logits at the ends of prompts: another reply to the same prompt then starts without a forward."""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

import torch

# 64 rows for a vocabulary of 49,152 in float32 are 13 MB. With a larger vocabulary, fewer rows fit.
MAX_ENTRIES = 64
MAX_BYTES = 32 << 20


def prompt_key(ids: Sequence[int]) -> bytes:
    """Return a key that is equal for two prompts only if all their ids are equal (up to a collision of 128 bits)."""
    values = ids if isinstance(ids, array) and ids.typecode == "q" else array("q", ids)
    return hashlib.blake2b(values, digest_size=16).digest()


class EndLogits:
    """The logits [vocabulary] after the last token of each prompt. Bounded; the least recently used are dropped first.

    The logits stay valid if the prompt's KV is evicted. The caller checks that the KV is resident, because the next
    token needs it. Not thread-safe.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._rows: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: bytes) -> bool:
        return key in self._rows

    def put(self, key: bytes, logits: torch.Tensor) -> None:
        """Store a copy of `logits` [vocabulary]."""
        self.drop(key)
        self._rows[key] = logits.clone()
        self._num_bytes += logits.nbytes
        while len(self._rows) > self._max_entries or self._num_bytes > self._max_bytes:
            self.drop(next(iter(self._rows)))

    def get(self, key: bytes) -> torch.Tensor | None:
        """Return the prompt's logits, or None. Do not write to them."""
        row = self._rows.get(key)
        if row is not None:
            self._rows.move_to_end(key)
        return row

    def clear(self) -> None:
        self._rows.clear()
        self._num_bytes = 0

    def drop(self, key: bytes) -> None:
        """Remove the prompt's logits, if there are any."""
        row = self._rows.pop(key, None)
        if row is not None:
            self._num_bytes -= row.nbytes
