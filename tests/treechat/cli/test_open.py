"""`treechat` without a command opens the app, here in a real pseudo-terminal."""

import os
import select
import subprocess
import sys
import time

import pytest

pty = pytest.importorskip("pty", reason="pseudo-terminals are POSIX")
DEADLINE_S = 240


def read_until(terminal: int, wanted: bytes) -> bytes:
    """The output of the app up to `wanted`."""
    drawn = b""
    end = time.monotonic() + DEADLINE_S
    while wanted not in drawn:
        ready, _, _ = select.select([terminal], [], [], max(end - time.monotonic(), 0))
        assert ready, drawn[-2000:]
        drawn += os.read(terminal, 65536)
    return drawn


def test_the_app_opens_the_named_conversation_and_ctrl_q_quits(cli, trip, tiny_model):
    import fcntl
    import struct
    import termios

    terminal, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    command = [sys.executable, "-m", "treechat", "-m", tiny_model, "-c", "a2a2"]
    env = os.environ | {"TERM": "xterm-256color"}
    with subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=env, start_new_session=True) as app:
        os.close(inner)
        try:
            read_until(terminal, b"Florence")
            os.write(terminal, b"\x11")
            end = time.monotonic() + DEADLINE_S
            while app.poll() is None and time.monotonic() < end:
                if select.select([terminal], [], [], 0.1)[0]:
                    try:
                        os.read(terminal, 65536)
                    except OSError:
                        # Linux reports the end of a pseudo-terminal as an error.
                        break
            assert app.wait(DEADLINE_S) == 0
        finally:
            app.kill()
            os.close(terminal)
