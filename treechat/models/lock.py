"""One writer at a time across processes: an advisory lock on a file, released by the system if its holder dies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

if os.name == "nt":
    import msvcrt

    def _try_lock(fd: int) -> bool:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            # A file system without locks (some network mounts): two conversions at once cost time, not
            # correctness, since each one puts its result in place with a single rename.
            return True
        return True


@contextmanager
def locked(path: Path, waiting: Callable[[], None], poll_s: float = 0.2) -> Iterator[None]:
    """Hold the lock of `path` (made where missing). `waiting` is called at each poll while another holds it.

    An exception from `waiting` gives up. The file stays: deleting it would let two holders lock two files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while not _try_lock(fd):
            waiting()
            time.sleep(poll_s)
        yield
    finally:
        os.close(fd)
