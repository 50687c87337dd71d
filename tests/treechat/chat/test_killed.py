"""kill -9 during twenty replies: message and reply are stored up to the last moments, and the reply can continue."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from treechat.chat.session import Chat
from treechat.chat.tokens.path_spans import SpanBook
from treechat.store import Store

FAKES = Path(__file__).parents[2] / "fakes.py"
PARENT = """
import asyncio, itertools, os, runpy, signal, sys, time
from pathlib import Path
from treechat.chat.events import TextAdded
from treechat.chat.model.chat_model import ChatModel
from treechat.chat.session import Chat
from treechat.chat.tokens.template import Template
from treechat.store import Store
from treechat_engine import Token

fakes = runpy.run_path(sys.argv[1])

class Endless(fakes["ScriptedEngine"]):
    async def stream(self, ids, params, priority="interactive", stop=None):
        for i in itertools.count():
            await asyncio.sleep(0.003)
            yield Token(97 + i % 26, -0.5)

async def main(name):
    model = ChatModel("m", Endless([""]), Template(fakes["ByteTokenizer"]()))
    chat = Chat.new(Store.open(Path(sys.argv[2])), model=model)
    said, has_said = open(sys.argv[2] + "." + name, "w"), False
    async for event in chat.send("sent by " + name):
        if isinstance(event, TextAdded):
            print(chat.current_id, len(chat.text(chat.current_id)), time.monotonic(), file=said, flush=True)
            if not has_said:
                os.write(1, b"%d\\n" % os.getpid())
            has_said = True

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for name in sys.stdin:
    if not os.fork():
        asyncio.run(main(name.strip()))
"""

# A token is in the database after 0.2 s; the rest allows for a machine that schedules the process late.
LATEST_S = 0.2 + 0.8


async def test_twenty_kills_lose_only_the_last_moments(tmp_path, model, engine):
    path = tmp_path / "t.db"
    Store.open(path).close()
    dice = random.Random(11)
    command = [sys.executable, "-c", PARENT, str(FAKES), str(path)]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert parent.stdin is not None and parent.stdout is not None
    try:
        for i in range(5):
            parent.stdin.writelines(f"{i}-{j}\n" for j in range(4))
            parent.stdin.flush()
            # Each child prints its process id with its first token.
            children = [int(parent.stdout.readline()) for _ in range(4)]
            time.sleep(dice.uniform(0.0, 1.5))
            for child in children:
                os.kill(child, signal.SIGKILL)
        # The pipe ends when the last child has ended.
        assert parent.communicate()[0] == ""
    finally:
        with suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()
    said: dict[str, list[tuple[int, float]]] = {}
    for file in tmp_path.glob("t.db.?-?"):
        for line in file.read_text().splitlines():
            node_id, length, at = (*line.split(), "", "")[:3]
            if at:
                said.setdefault(node_id, []).append((int(length), float(at)))
    assert len(said) == 20
    with Store.open(path) as store:
        assert store.verify() == []
        infos = store.conversations()
        assert len(infos) == 20
        for info in infos:
            chat = Chat.open(store, info.id, model=model)
            user, reply = chat.path()
            assert chat.text(user.id).startswith("sent by ")
            assert reply.status == "interrupted"
            kept = chat.text(reply.id)
            assert store.span(reply.id, model.fingerprint).ids == tuple(kept.encode())
            tokens = said.get(reply.id, [])
            # The last tokens do not count, whatever their time: a process that was not scheduled cannot write them.
            due = [length for length, at in tokens[:-20] if at < tokens[-1][1] - LATEST_S]
            assert len(kept) >= max(due, default=0)
            async for _ in chat.resume(reply.id):
                pass
            assert chat.text(reply.id) == kept + "Hello."
            prompt = [*SpanBook(store, model.template).ids(chat.tree, [user.id]), *kept.encode()]
            assert list(engine.prompts[-1]) == prompt
