"""Identities of conversations and nodes: random first, so that a short prefix names one."""

from __future__ import annotations

import secrets

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32 in lower case: no i, l, o or u to misread."""

ID_LEN = 16
SHORT_LEN = 8
"""Characters of the short form shown to people: 40 random bits, unique among a million nodes more often than not."""


def new_id() -> str:
    """A fresh id of `ID_LEN` characters, 80 random bits. Order in time is kept by the rows, not by the id."""
    value = secrets.randbits(5 * ID_LEN)
    return "".join(ALPHABET[(value >> shift) & 31] for shift in range(5 * (ID_LEN - 1), -1, -5))


def short_id(full_id: str) -> str:
    """The prefix that is shown to people."""
    return full_id[:SHORT_LEN]
