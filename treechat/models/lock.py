"""One writer at a time across processes: an advisory file lock; the system releases it if the process dies."""

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
            # A file system without locks (some network mounts). Two conversions at once then cost time but give a
            # correct result, because each puts its result in place with one rename.
            return True
        return True


@contextmanager
def locked(path: Path, on_wait: Callable[[], None], poll_s: float = 0.2) -> Iterator[None]:
    """Hold the lock of `path`.

    path: the lock file, created if missing. It is never deleted: after a deletion, two processes could lock two files.
    on_wait: called at each poll while another process holds the lock. An exception from it ends the wait.
    poll_s: seconds between two polls.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while not _try_lock(fd):
            on_wait()
            time.sleep(poll_s)
        yield
    finally:
        os.close(fd)
