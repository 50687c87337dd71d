"""`ls`, `show`, `cat`, `log` and `search`: printed and JSON output."""

import json

from treechat.tree import Node, Tree


def test_ls_without_conversations_prints_a_note(cli):
    result = cli("ls")
    assert result.stdout == ""
    assert "No conversations yet" in result.stderr
    assert cli.json("ls") == []


def test_ls_json_has_exactly_these_keys(cli, trip):
    [row] = cli.json("ls")
    assert set(row) == {"id", "title", "nodes", "forks", "updated"}
    assert (row["id"], row["nodes"], row["forks"]) == (trip["c"], 5, 1)


def test_ls_prints_symbols_for_control_characters(cli, trip):
    out = cli("ls").stdout
    assert "\x1b" not in out
    assert "Trip ␛[31mto Italy" in out
    assert "5 nodes" in out and "1 fork" in out


def test_show_draws_runs_with_the_current_branch_first(cli, trip):
    lines = cli("show").stdout.splitlines()
    assert len(lines) == 4
    assert lines[1].startswith(trip["q1"][:8]) and "2 messages" in lines[1]
    assert lines[2].startswith(trip["q2"][:8]) and lines[2].endswith("1/2  ← here")
    assert lines[3].startswith(trip["a2"][:8]) and "└─○ To Florence." in lines[3] and "“art”  ★" in lines[3]
    assert "\x1b" not in "".join(lines)


def test_show_messages_has_a_row_for_each(cli, trip):
    lines = cli("show", "@", "--messages").stdout.splitlines()[1:]
    assert [line[:4] for line in lines] == ["sysy", "q1q1", "a1a1", "q2q2", "a2a2"]
    assert "user: By train?" in lines[3]


def test_show_of_a_node_draws_its_subtree(cli, trip):
    assert len(cli("show", "a1a1").stdout.splitlines()) == 1
    assert [n["id"] for n in cli.json("show", "a1a1")["nodes"]] == [trip["a1"], trip["q2"]]


def test_show_json_is_the_whole_tree(cli, trip):
    shown = cli.json("show", "cc00")
    assert (shown["id"], shown["current"]) == (trip["c"], trip["q2"])
    assert {n["id"]: n["parent"] for n in shown["nodes"]}[trip["a2"]] == trip["q1"]


def test_a_deep_tree_of_forks_is_drawn_within_the_width():
    from treechat.cli.tree_lines import lines

    tree = Tree([Node("n0", None, "user", preview="x" * 200)])
    for i in range(1, 600):
        tree.add(Node(f"n{i}", f"n{i - 1}", "user", preview="word"))
        tree.add(Node(f"s{i}", f"n{i - 1}", "user", preview="side"))
    drawn = list(lines(tree, "s599", None, False, 80))
    assert len(drawn) == 1 + 2 * 599
    assert max(len(line) for line in drawn) <= 100


def test_cat_prints_the_unchanged_text_to_a_pipe(cli, trip):
    assert cli("cat", "a1a1").stdout == "To Rome\x1b[31m.\n"


def test_cat_names_nodes_by_current_steps_up_and_label(cli, trip):
    assert cli("cat").stdout == "By train?\n"
    assert cli("cat", "@~2").stdout == "Where to go?\n"
    assert cli("cat", "art").stdout == "To Florence.\n"


def test_cat_path_prints_the_branch(cli, trip):
    out = cli("cat", "--path", "a2a2").stdout
    assert out.index("Be kind.") < out.index("Where to go?") < out.index("To Florence.")
    assert "Rome" not in out


def test_log_lists_the_path_with_tokens_and_times_of_replies(cli, trip):
    out = cli("log").stdout
    assert [line[:4] for line in out.splitlines() if line[0] != " "] == ["sysy", "q1q1", "a1a1", "q2q2"]
    assert "⋔ 1/2 To Rome␛[31m." in out
    assert "tiny · reused 6, computed 4 · first token 0.25 s · 4.0 tokens/s" in out
    assert cli.json("log")[2]["turn"]["cached_tokens"] == 6


def test_search_finds_words_in_any_branch(cli, trip):
    assert cli("search", "florence").stdout.startswith(trip["a2"][:8])
    assert [hit["id"] for hit in cli.json("search", "rome")] == [trip["a1"]]
    result = cli("search", '"unclosed AND ( nothing')
    assert result.stdout == "" and "Nothing found" in result.stderr


def test_an_unknown_name_is_wrong_usage_without_a_traceback(cli, trip):
    for command in ("show", "cat", "log", "export", "rm"):
        result = cli(command, "zzzz", status=2)
        assert result.stderr.startswith("treechat: ")
        assert result.stdout == ""


def test_a_file_that_is_no_database_prints_one_line_and_exits_1(cli):
    cli.db.parent.mkdir()
    cli.db.write_bytes(b"this is no database, " * 100)
    result = cli("ls", status=1)
    assert result.stderr.startswith("treechat: ") and "Traceback" not in result.stderr


def test_db_may_stand_before_or_after_the_command(cli, trip, tmp_path):
    other = str(tmp_path / "other.db")
    assert json.loads(cli("--db", other, "ls", "--json").stdout) == []
    assert json.loads(cli("ls", "--db", other, "--json").stdout) == []
    assert len(cli.json("ls")) == 1
