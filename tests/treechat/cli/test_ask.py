"""`ask` with the real engine on a tiny random model, and with the default model in a subprocess."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from treechat.cli import reply_output


def test_ask_streams_the_reply_and_stores_both_messages(cli, tiny_model):
    result = cli("ask", "-m", tiny_model, "--max-tokens", "8", "--temperature", "0", "Hello", "there")
    assert cli("cat", "@~1").stdout == "Hello there\n"
    assert result.stdout == cli("cat", "@").stdout
    assert cli.json("ls")[0]["title"] == "Hello there"


def test_ask_json_has_exactly_these_keys_and_continuing_reuses_the_path(cli, tiny_model):
    common = ("ask", "-m", tiny_model, "--max-tokens", "4")
    first = cli.json(*common, "--seed", "1", "--system", "Be brief.", "Hello")
    assert set(first) == {"conversation", "nodes"}
    [node] = first["nodes"]
    assert set(node) == {"id", "parent", "text", "finish_reason", "usage"}
    assert set(node["usage"]) == {
        "prompt_tokens", "cached_tokens", "restored_tokens", "computed_tokens", "completion_tokens", "ttft_s",
        "total_s",
    }  # fmt: skip
    assert (node["finish_reason"], node["usage"]["completion_tokens"]) == ("length", 4)
    second = cli.json(*common, "-c", node["id"], "-n", "3", "More")
    assert second["conversation"] == first["conversation"]
    assert len({one["id"] for one in second["nodes"]}) == 3
    assert len({one["parent"] for one in second["nodes"]}) == 1
    # The last sampled token has no KV; the earlier command saved the KV of all others to disk.
    assert second["nodes"][0]["usage"]["restored_tokens"] == node["usage"]["prompt_tokens"] + 3
    computed = [one["usage"]["computed_tokens"] for one in second["nodes"]]
    assert computed[0] > 1 and max(computed[1:]) <= 1
    assert [line["role"] for line in cli.json("log")] == ["system", "user", "assistant", "user", "assistant"]


def test_the_same_seed_gives_the_same_reply(cli, tiny_model):
    ask = ("ask", "-m", tiny_model, "--max-tokens", "12", "--temperature", "1", "--seed", "5", "Hi")
    assert cli.json(*ask)["nodes"][0]["text"] == cli.json(*ask)["nodes"][0]["text"]


def test_ask_reads_standard_input(cli, tiny_model):
    cli("ask", "-m", tiny_model, "--max-tokens", "2", input="from\xe9 a pipe\n".encode())
    assert cli("cat", "@~1").stdout == "from\xe9 a pipe\n"


@pytest.mark.parametrize(
    ("data", "asked"),
    [
        (b"\xef\xbb\xbffrom\r\nWindows\r\n", "from\nWindows\n"),
        ("caf\xe9".encode("latin-1"), "caf\ufffd\n"),
        (b"a\0b", None),
        ("Hi".encode("utf-16"), None),
    ],
)
def test_standard_input_is_decoded_as_text(cli, tiny_model, data, asked):
    result = cli("ask", "-m", tiny_model, "--max-tokens", "1", input=data, status=0 if asked else 2)
    assert ("Replaced 1 invalid character" in result.stderr) == (b"caf" in data) and ("UTF-16" in result.stderr) == (
        asked is None
    )
    if asked is not None:
        assert cli("cat", "@~1").stdout == asked


def test_siblings_are_printed_one_after_another_with_their_ids(cli, tiny_model):
    result = cli("ask", "-m", tiny_model, "--max-tokens", "3", "-n", "2", "Hi")
    assert "1/2 · " in result.stderr and "2/2 · " in result.stderr
    assert cli.json("ls")[0]["forks"] == 1


def test_an_empty_text_and_a_system_prompt_with_continue_are_wrong_usage(cli, trip):
    cli("ask", "  ", status=2)
    cli("ask", "-c", "@", "--system", "x", "Hi", status=2)
    cli("ask", "-n", "0", "Hi", status=2)
    cli("ask", "-c", "zzzz", "Hi", status=2)
    assert cli.json("ls")[0]["nodes"] == 5


def test_a_missing_model_fails_and_writes_nothing(cli, tmp_path):
    (tmp_path / "empty").mkdir()
    result = cli("ask", "-m", str(tmp_path / "empty"), "Hi", status=1)
    assert result.stderr.startswith("treechat: ") and result.stdout == ""
    assert cli.json("ls") == []


def test_a_prompt_that_never_fits_is_refused(cli, tiny_model):
    result = cli("ask", "-m", tiny_model, "long " * 4_000, status=1)
    assert result.stderr.startswith("treechat: ") and "tokens" in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_an_interrupt_keeps_the_partial_reply_and_exits_130(cli, tiny_model, monkeypatch):
    shown = []

    def show(text: str, end: str = "") -> None:
        if not shown:
            os.kill(os.getpid(), signal.SIGINT)
        shown.append(text)

    monkeypatch.setattr(reply_output, "print_text", show)
    result = cli("ask", "-m", tiny_model, "--max-tokens", "7000", "Go on", status=130)
    assert "The text so far is kept" in result.stderr
    reply = cli.json("log")[-1]
    assert (reply["role"], reply["status"]) == ("assistant", "stopped")
    assert shown[0] and cli("cat", "@").stdout.startswith(shown[0])


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_an_interrupted_process_reports_the_kept_text(cli, tiny_model):
    command = [sys.executable, "-m", "treechat", "ask", "-m", tiny_model, "--max-tokens", "7000", "Go on"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err.decode()
    assert "The text so far is kept" in err.decode() and "Traceback" not in err.decode()
    [*_, reply] = cli.json("log")
    assert (reply["role"], reply["status"]) == ("assistant", "stopped")
    assert reply["preview"]


def test_a_model_without_a_template_continues_the_text_and_prints_a_note(cli, tiny_model, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base, ignore=shutil.ignore_patterns("chat_template*"))
    result = cli("ask", "-m", str(base), "--max-tokens", "5", "Once upon a time")
    assert "no chat template: it continues the plain text" in result.stderr
    asked = cli.json("ask", "-m", str(base), "--max-tokens", "5", "-c", "@", " there was")["nodes"][0]
    # One byte is one token: the path contains only the texts.
    assert asked["usage"]["prompt_tokens"] == len("Once upon a time") + 5 + len(" there was")


def test_a_closed_pipe_prints_no_traceback(cli, trip):
    command = [sys.executable, "-m", "treechat", "export", "--all"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.slow
@pytest.mark.model
def test_the_capital_of_france_is_paris(cli, default_model):
    command = [sys.executable, "-m", "treechat", "ask", "-m", str(default_model.path), "--temperature", "0", "--json"]
    command += ["--max-tokens", "24", "What is the capital of France?"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert "Paris" in answer["nodes"][0]["text"]
    assert answer["nodes"][0]["finish_reason"] == "stop"


def test_continuing_an_import_reports_the_cost_first(cli, tiny_model, tmp_path):
    with cli.store() as store:
        conversation = store.create_conversation("imported").id
        rows = [
            {
                "id": f"n{i}",
                "parent_id": f"n{i - 1}" if i else None,
                "role": "assistant" if i % 2 else "user",
                "text": "x" * 40,
            }
            for i in range(30)
        ]
        store.add_nodes(conversation, rows)
    arguments = ("ask", "-m", tiny_model, "-c", "n29", "--max-tokens", "2", "and?")
    first = cli(*arguments)
    assert "Tokenizing 31 messages for this model, once; then computing about 4" in first.stderr
    assert "Tokenizing" not in cli(*arguments).stderr
