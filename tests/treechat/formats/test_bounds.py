"""The memory limit of an import, and the database after a stopped import."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests.treechat.formats.writers import WRITERS, WrittenMessage
from treechat.store import Store

MAX_MB = 1_500
"""Memory limit of an import; `records` limits the bytes and values of a record."""

SIZE = 60_000_000


def repeated(piece: bytes, head: bytes = b"[", tail: bytes = b"]") -> bytes:
    return head + piece * (SIZE // len(piece)) + tail


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.json", "w") as member:
        member.write(b'[{"mapping": {"a": "')
        for _ in range(600):
            member.write(b"x" * (1 << 20))


HELLO = b'{"messages": [{"role": "user", "content": "Hi"}]}\n'

HOSTILE = {
    "empty lists": lambda: b'[{"mapping": ' + repeated(b"[],", tail=b"[]]") + b"}]",
    "deep lists": lambda: b'{"mapping": ' + b"[" * SIZE,
    "lists as deep as allowed": lambda: b'[{"mapping": ' + b"[" * 4_900_000 + b"]" * 4_900_000 + b"}]",
    "many keys": lambda: b'[{"mapping": {' + b",".join(b'"%x": {}' % i for i in range(4_000_000)) + b"}}]",
    "a long string": lambda: b'[{"mapping": {"a": "' + b"x" * 5 * SIZE,
    "a line without end": lambda: HELLO + b'{"messages": ["' + b"x" * 5 * SIZE,
    "empty lines": lambda: HELLO + b'{"messages": []}\n' * 3_000_000,
    "a number": lambda: b'[{"mapping": ' + b"9" * SIZE + b"}]",
    "one conversation of nothing": lambda: b'{"conversationId": "c", "messages": [' + b"{}," * 1_500_000 + b"{}]}",
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [*HOSTILE, "a zip bomb"])
def test_no_file_takes_more_memory_than_the_bound(tmp_path, name):
    file = tmp_path / "x"
    if name in HOSTILE:
        file.write_bytes(HOSTILE[name]())
    else:
        bomb(file)
    process = start(file, tmp_path / "x.db")
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        raise
    assert os.waitstatus_to_exitcode(status) in (0, 1)
    assert usage.ru_maxrss / 1024 < MAX_MB


def start(file: Path, db: Path, **more) -> subprocess.Popen:
    args = [sys.executable, "-m", "treechat", "import", "--json", "--db", str(db), str(file)]
    return subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **more)


def many_conversations(path: Path, count: int, length: int) -> None:
    tree = [WrittenMessage(i - 1 if i else None, "assistant" if i % 2 else "user", f"{i}.") for i in range(length)]
    [conversation] = json.loads(WRITERS["chatgpt"](tree))
    path.write_text(json.dumps([conversation | {"conversation_id": f"c-{i}"} for i in range(count)]))


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_stopping_leaves_whole_conversations_and_the_database_is_usable_meanwhile(tmp_path, sign):
    file, db = tmp_path / "x.json", tmp_path / "x.db"
    many_conversations(file, 2_000, 40)
    with Store.open(db) as store:
        mine = store.create_conversation("Mine")
        process = start(file, db)
        deadline = time.monotonic() + 240
        while len(store.conversations()) < 20:
            # Write from a second connection during the import.
            store.add_node(mine.id, None, "user", "typing")
            assert process.poll() is None and time.monotonic() < deadline
        process.send_signal(sign)
        assert process.stderr is not None
        stderr = process.stderr.read().decode()
        code = process.wait()
    with Store.open(db) as store:
        counts = [info.num_nodes for info in store.conversations() if info.title != "Mine"]
    assert 20 <= len(counts) + 1 < 2_000 and set(counts) == {40}
    if sign == signal.SIGINT:
        assert code == 130 and "each of them whole" in stderr
