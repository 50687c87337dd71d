"""`rm`, `undo`, `redo`, and the commands about this machine."""

import io
import json
import sys

import pytest

from treechat.cli import main
from treechat.config import Config
from treechat.store import imports


def test_rm_of_a_node_hides_its_subtree_and_undo_restores_it(cli, trip):
    result = cli("rm", "a1a1")
    assert "Deleted 2 messages" in result.stderr and result.stdout == ""
    assert cli.json("ls")[0]["nodes"] == 3
    assert "Undone: deleting a message" in cli("undo").stderr
    assert cli.json("ls")[0]["nodes"] == 5
    assert "Redone" in cli("redo").stderr
    assert cli.json("ls")[0]["nodes"] == 3


def test_rm_of_a_conversation_can_be_undone(cli, trip):
    cli("rm", "cc00")
    assert cli.json("ls") == []
    cli("undo")
    assert [row["id"] for row in cli.json("ls")] == [trip["c"]]


def test_rm_at_is_the_current_node(cli, trip):
    cli("rm", "@")
    assert cli.json("ls")[0]["nodes"] == 4
    assert cli("cat", "@").stdout == "To Rome\x1b[31m.\n"


def test_one_wrong_name_and_rm_changes_nothing(cli, trip):
    cli("rm", "a1a1", "zzzz", status=2)
    assert cli.json("ls")[0]["nodes"] == 5


def test_undo_without_a_change_prints_a_note(cli):
    assert "nothing to undo" in cli("undo").stderr


def test_config_prints_its_path_and_the_values_in_effect(cli):
    result = cli("config")
    assert str(cli.home / "config" / "config.toml") in result.stderr
    assert "kv_tokens = 8000" in result.stdout
    shown = cli.json("config")
    assert set(shown["values"]) == set(Config().by_key())
    assert (shown["exists"], shown["values"]["kv_tokens"], shown["values"]["model"]) == (True, 8000, None)


def test_config_edit_begins_with_a_commented_file(cli, monkeypatch):
    (cli.home / "config" / "config.toml").unlink()
    monkeypatch.setenv("VISUAL", "true")
    cli("config", "--edit")
    text = (cli.home / "config" / "config.toml").read_text()
    assert "# max_tokens = 1024" in text and "# theme is chosen by treechat" in text
    assert all(not line or line.startswith("#") for line in text.splitlines())
    assert cli.json("config")["values"]["kv_tokens"] is None


def test_a_wrong_configuration_is_wrong_usage(cli):
    (cli.home / "config" / "config.toml").write_text("them = 1\n")
    result = cli("ls", status=2)
    assert "unknown key 'them'" in result.stderr and "Did you mean 'theme'?" in result.stderr
    assert any("unknown key" in problem for problem in json.loads(cli("doctor", "--json", status=1).stdout)["problems"])


@pytest.mark.parametrize(
    ("closed", "args", "status"),
    [("stdin", ["import", "-"], 1), ("stdin", ["ask"], 2), ("stdout", ["export"], 0), ("stderr", ["rm", "zzz"], 2)],
)
def test_a_closed_standard_stream_is_treated_as_empty(cli, trip, monkeypatch, capsys, closed, args, status):
    monkeypatch.setattr(sys, closed, None)
    with pytest.raises(SystemExit) as exit:
        main(args)
    assert exit.value.code == status
    assert ("empty" in capsys.readouterr().err) == (args == ["ask"])


def test_without_a_terminal_the_app_prints_an_error_and_does_not_open(cli, monkeypatch):
    monkeypatch.delenv("TEXTUAL_DRIVER", raising=False)
    monkeypatch.setattr(sys, "__stdin__", None)
    for args in ((), ("tour",)):
        assert "needs a terminal" in cli(*args, status=2).stderr
    monkeypatch.setattr(sys, "__stdin__", io.StringIO())
    assert "needs a terminal" in cli(status=2).stderr


def test_doctor_finds_no_problem_here(cli, trip):
    found = cli.json("doctor")
    assert found["problems"] == []
    assert found["database"]["conversations"] == 1
    assert found["packages"]["torch"]
    assert "No problems found." in cli("doctor").stdout


def test_doctor_removes_the_rows_of_an_interrupted_import(cli, trip, monkeypatch):
    with cli.store() as store:
        store.create_conversation(id="half", source="x", source_id="half", is_unfinished=True)
        store.begin_import("half", "dead")
        store.add_nodes("half", [{"parent_id": None, "role": "user", "text": "acorns"}] * 3)
        store.conn.execute("UPDATE imports SET started = 'before'")
    monkeypatch.setattr("treechat.store.store.SWEEP_S", -1)
    monkeypatch.setattr(imports, "PORTION", 1)
    assert "Removed 2 messages of an interrupted import" in cli("doctor").stderr
    assert cli("doctor").stderr == ""


@pytest.mark.model
def test_doctor_reports_which_forward_a_model_runs_and_why(cli, default_model):
    found = cli.json("doctor", "-m", str(default_model.path))
    assert found["forward"]["name"] == "fused"
    assert "computes the same" in found["forward"]["reason"]


def test_models_lists_none_before_the_first_fetch_and_rm_names_an_unknown_model(cli):
    assert json.loads(cli("models", "list", "--json").stdout) == []
    assert "No model is installed yet" in cli("models").stderr
    assert cli("models", "rm", "nothing", status=1).stderr.startswith("treechat: ")


def test_completion_prints_a_script_for_each_shell(cli):
    for shell in ("zsh", "fish"):
        assert "_TREECHAT_COMPLETE" in cli("completion", shell).stdout
    cli("completion", "tcsh", status=2)
