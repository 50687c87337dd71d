"""`export` and `import` through the store: nothing is lost or doubled, and each skipped part is reported."""

import json


def lines(data: str) -> list[dict]:
    return [json.loads(line) for line in data.splitlines()]


def test_export_import_export_is_byte_identical_through_another_database(cli, trip, tmp_path):
    first = cli("export", "--tokens").stdout_bytes
    file = tmp_path / "x.jsonl"
    file.write_bytes(first)
    other = str(tmp_path / "other.db")
    cli("import", str(file), "--db", other)
    assert cli("export", "--tokens", "--db", other).stdout_bytes == first
    assert [line.get("spans") for line in lines(first.decode())][3] == [
        {"tokenizer": "tok", "ids": [1, 2], "logprobs": [-0.5, -0.25]}
    ]


def test_import_json_counts_and_importing_twice_adds_nothing(cli, trip, tmp_path):
    file = tmp_path / "x.jsonl"
    cli("export", "-o", str(file))
    other = ("--db", str(tmp_path / "other.db"))
    said = {"dropped": [], "failed": [], "unsaid": 0}
    one = {"id": trip["c"], "title": "Trip \x1b[31mto Italy", "source": "treechat", "new": True, "nodes": 5, "forks": 1}
    assert cli.json("import", str(file), *other) == {
        "conversations": 1, "nodes": 5, "forks": 1, "imported": [one], "unchanged": 0, **said,
    }  # fmt: skip
    nothing = {"conversations": 0, "nodes": 0, "forks": 0, "imported": [], "unchanged": 1, **said}
    assert cli.json("import", str(file), *other) == nothing
    assert cli.json("import", str(file)) == nothing
    assert cli.json("ls", *other)[0]["nodes"] == 5


def test_only_the_missing_nodes_of_a_known_conversation_are_added(cli, trip, tmp_path):
    file = tmp_path / "x.jsonl"
    cli("export", "-o", str(file))
    more = {"id": "new1", "parent": trip["a1"], "role": "user", "text": "By car?", "status": "complete", "created": 9.0}
    file.write_text(file.read_text() + json.dumps(more) + "\n")
    report = cli.json("import", str(file))
    assert (report["conversations"], report["nodes"], report["forks"]) == (0, 1, 1)
    assert cli("cat", "new1").stdout == "By car?\n"
    assert cli("cat", "@").stdout == "By train?\n"


def test_a_dry_run_counts_the_same_and_changes_nothing(cli, trip, tmp_path):
    file = tmp_path / "x.jsonl"
    cli("export", "-o", str(file))
    other = ("--db", str(tmp_path / "other.db"))
    dry = cli.json("import", "--dry-run", str(file), *other)
    assert (dry["conversations"], dry["nodes"], dry["forks"]) == (1, 5, 1)
    assert cli.json("ls", *other) == []
    assert cli.json("import", str(file), *other) == dry


def test_ids_in_use_by_another_conversation_are_replaced_idempotently(cli, trip, tmp_path):
    file = tmp_path / "x.jsonl"
    cli("export", "-o", str(file))
    cli("rm", "cc00")
    report = cli.json("import", str(file))
    assert (report["conversations"], report["nodes"]) == (1, 5)
    assert cli.json("import", str(file))["nodes"] == 0
    [row] = cli.json("ls")
    assert row["id"] != trip["c"] and row["nodes"] == 5
    assert cli("cat", "@").stdout == "By train?\n"


def test_a_bad_file_fails_and_the_others_are_imported(cli, trip, tmp_path):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    cli("export", "-o", str(good))
    bad.write_text("not ours\n")
    report = cli.json("import", str(bad), str(tmp_path / "gone"), str(good), "--db", str(tmp_path / "o.db"), status=1)
    assert report["nodes"] == 5
    assert len(report["failed"]) >= 2
    assert any("bad.jsonl" in reason for reason in report["failed"])
    assert any("gone" in reason for reason in report["failed"])


def test_skipped_parts_are_reported(cli, tmp_path):
    file = tmp_path / "x.jsonl"
    header = {
        "format": "treechat",
        "version": 1,
        "id": "c1",
        "title": "t",
        "created": 1.0,
        "current": None,
        "models": [],
    }
    node = {"id": "n1", "parent": "gone", "role": "user", "text": "hi"}
    file.write_text(json.dumps(header) + "\n" + json.dumps(node) + "\n")
    result = cli("import", str(file))
    assert "the parent gone of node n1 is missing" in result.stderr
    assert "Added 1 conversation, 1 node and 0 forks." in result.stderr


def test_import_reads_standard_input(cli, trip, tmp_path):
    data = cli("export").stdout_bytes
    cli("import", "-", "--db", str(tmp_path / "o.db"), input=data)
    assert cli.json("ls", "--db", str(tmp_path / "o.db"))[0]["nodes"] == 5


def test_a_node_exports_its_branch_and_a_conversation_everything(cli, trip):
    assert [line["id"] for line in lines(cli("export", "a2a2").stdout)[1:]] == [trip["sy"], trip["q1"], trip["a2"]]
    assert [line["id"] for line in lines(cli("export", "--branch").stdout)[1:]][-1] == trip["q2"]
    assert len(lines(cli("export", "cc00").stdout)) == 6


def test_all_exports_every_conversation_into_one_file(cli, trip, tmp_path):
    with cli.store() as store:
        store.add_node(store.create_conversation("Second").id, None, "user", "hi")
    data = cli("export", "--all").stdout_bytes
    assert sum("format" in line for line in lines(data.decode())) == 2
    other = str(tmp_path / "o.db")
    cli("import", "-", "--db", other, input=data)
    assert cli("export", "--all", "--db", other).stdout_bytes == data
    cli("export", "--all", "cc00", status=2)


def test_markdown_of_a_branch_and_of_a_tree(cli, trip):
    branch = cli("export", "a2a2", "--format", "markdown").stdout
    assert "## You\n\nWhere to go?\n" in branch and "Rome" not in branch
    tree = cli("export", "--format", "markdown").stdout
    assert "## 1.1 · " in tree and "## 1.2 · art" in tree


def test_deleted_branches_are_not_exported(cli, trip):
    cli("rm", "a2a2")
    assert trip["a2"] not in cli("export").stdout


def test_a_failed_export_leaves_no_partial_file(cli, trip, tmp_path):
    cli("export", "-o", str(tmp_path / "no" / "x.jsonl"), status=1)
    (tmp_path / "old.jsonl").write_text("old")
    cli("export", "-o", str(tmp_path / "old.jsonl"))
    assert sorted(p.name for p in tmp_path.glob("*.jsonl*")) == ["old.jsonl"]
