"""`import` of files of other programs: new nodes, reports and refusals."""

import io
import json
import os
import threading
import zipfile
from pathlib import Path

from treechat.cli.import_ import FORMATS
from treechat.formats.importers.registry import IMPORTERS
from treechat.formats.reading import inputs
from treechat.formats.trees import prefix_rows


def chatgpt(*ids: str, conversation_id: str = "c1", parents: dict[str, str] | None = None) -> dict:
    """Messages with these ids, as a chain unless `parents` gives other parents."""
    above = dict(zip(ids, (None, *ids), strict=False)) | (parents or {})
    return {
        "conversation_id": conversation_id,
        "title": f"Chat {conversation_id}",
        "mapping": {
            i: {
                "parent": above[i],
                "message": {
                    "author": {"role": "user" if i[0] == "u" else "assistant"},
                    "content": {"content_type": "text", "parts": [i]},
                    "end_turn": True,
                },
            }
            for i in ids
        },
    }


def test_the_formats_of_the_command_are_those_of_the_importers():
    assert tuple(IMPORTERS) == FORMATS


def test_a_later_export_adds_its_new_nodes_to_the_same_tree(cli, tmp_path):
    file = tmp_path / "conversations.json"
    file.write_text(json.dumps([chatgpt("u1", "a1")]))
    assert cli.json("import", str(file))["nodes"] == 2
    assert cli.json("import", str(file))["nodes"] == 0
    file.write_text(
        json.dumps([chatgpt("u1", "a1", "u2", "a1b", parents={"a1b": "u1"}), chatgpt("u1", conversation_id="c2")])
    )
    report = cli.json("import", str(file))
    assert (report["conversations"], report["nodes"], report["forks"]) == (1, 3, 1)
    assert [(one["title"], one["new"], one["nodes"]) for one in report["imported"]] == [
        ("Chat c1", False, 2),
        ("Chat c2", True, 1),
    ]
    assert sorted(row["nodes"] for row in cli.json("ls")) == [1, 4] and report["unchanged"] == 0
    said = cli("import", str(file)).stderr
    assert said == "Added 0 conversations, 0 nodes and 0 forks. 2 conversations had no new messages.\n"


def test_an_imported_conversation_continues_like_any_other(cli, tmp_path):
    file = tmp_path / "x.json"
    file.write_text(json.dumps(chatgpt("u1", "a1", "a2", parents={"a2": "u1"})))
    cli("import", str(file))
    exported = tmp_path / "native.jsonl"
    cli("export", "--all", "-o", str(exported))
    other = ("--db", str(tmp_path / "other.db"))
    assert cli.json("import", str(exported), *other)["nodes"] == 3
    assert cli.json("import", str(file), *other)["nodes"] == 0


def test_importing_a_deleted_conversation_again_adds_it(cli, tmp_path):
    file = tmp_path / "x.json"
    file.write_text(json.dumps(chatgpt("u1", "a1")))
    cli("import", str(file))
    cli("rm", cli.json("ls")[0]["id"])
    assert cli.json("import", str(file))["nodes"] == 2
    assert cli.json("import", str(file))["nodes"] == 0


def test_a_folder_a_zip_and_a_pipe(cli, tmp_path):
    folder = tmp_path / "exports" / "deep"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text(json.dumps([chatgpt("u1", "a1")]))
    (folder / "settings.json").write_text('{"theme": "dark"}')
    (folder / "picture.png").write_bytes(b"\x89PNG")
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(folder / "a.json", "a.json")
    report = cli.json("import", str(tmp_path / "exports"))
    assert report["nodes"] == 2 and "1 other file" in report["dropped"][0]
    (folder / "broken.json").write_text('[{"mapping": tru}]')
    [why] = cli.json("import", str(tmp_path / "exports"), status=1)["failed"]
    assert "broken.json" in why and "item 1: not JSON" in why
    assert cli.json("import", str(archive))["nodes"] == 0
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(archive.read_bytes(),))
    writer.start()
    assert cli.json("import", str(pipe), "--db", str(tmp_path / "o.db"))["nodes"] == 2
    writer.join()


def test_no_path_of_a_zip_is_written_to(cli, tmp_path):
    archive = tmp_path / "inner" / "x.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../escaped.json", json.dumps([chatgpt("u1")]))
        file.writestr("/tmp/absolute-treechat.json", json.dumps([chatgpt("u1", conversation_id="c2")]))
    before = {path for path in tmp_path.rglob("*") if "data" not in path.parts}
    assert cli.json("import", str(archive))["nodes"] == 2
    assert {path for path in tmp_path.rglob("*") if "data" not in path.parts} == before
    assert not Path("/tmp/absolute-treechat.json").exists()


def test_a_zip_bomb_is_not_read_to_its_end(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "FREE_EXPANSION_BYTES", 8 << 20)
    archive = tmp_path / "bomb.zip"
    with (
        zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("x.json", "w", force_zip64=True) as member,
    ):
        member.write(b"[")
        for _ in range(9):
            member.write(b" " * (1 << 20))
    [why] = cli.json("import", str(archive), status=1)["failed"]
    assert "expands to far more" in why


def test_damaged_zips_are_reported_as_damaged(cli, tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("x.json", json.dumps([chatgpt("u1", "a1")]))
    whole = data.getvalue()
    for name, damaged in {"cut": whole[:-30], "changed": whole.replace(b"author", b"Author")}.items():
        file = tmp_path / f"{name}.zip"
        file.write_bytes(damaged)
        [why, *_] = cli.json("import", str(file), status=1)["failed"]
        assert "damaged" in why


def test_the_error_for_an_unknown_file_lists_the_formats(cli, tmp_path):
    file = tmp_path / "x.json"
    for content in (b'{"theme": "dark"}', b"", b"\x00\xff", b"hello", b"[" * 100_000, b"[1, 2]"):
        file.write_bytes(content)
        result = cli("import", str(file), status=1)
        assert "ChatGPT" in result.stderr and "--format" in result.stderr


def test_a_damaged_conversation_does_not_stop_the_others(cli, tmp_path):
    file = tmp_path / "x.json"
    good = json.dumps(chatgpt("u1", "a1"))
    file.write_text(f'[{good.replace("c1", "c0")}, {{"mapping": tru}}, 7, {good}, ' + good[:-40])
    report = cli.json("import", str(file), status=1)
    assert report["conversations"] == 2
    assert len(report["failed"]) == 2 and "item 2" in report["failed"][0]


def test_the_error_names_the_file_once_and_recognises_documents(cli, tmp_path):
    page = tmp_path / "chat.html"
    page.write_text("<!DOCTYPE html><title>chat</title>")
    said = cli("import", str(page), status=1).stderr
    assert said.startswith("failed: chat.html is a web page") and "Export data" in said
    said = cli("import", "-", status=1, input=b"%PDF-1.7").stderr
    assert said.startswith("failed: standard input is a PDF document")


def test_control_characters_of_a_file_do_not_reach_the_terminal(cli, tmp_path):
    file = tmp_path / "x.json"
    evil = chatgpt("u1") | {"title": "\x1b[2Jgone"}
    evil["mapping"]["u1"]["parent"] = "\x1b[31mmissing"
    file.write_text(json.dumps(evil))
    assert "\x1b" not in cli("import", str(file)).stderr


def test_the_format_option_takes_precedence(cli, tmp_path):
    file = tmp_path / "x.json"
    file.write_text(json.dumps(chatgpt("u1")))
    [why] = cli.json("import", "--format", "treechat", str(file), status=1)["failed"]
    assert "not a treechat export" in why
    assert cli.json("import", "--format", "chatgpt", str(file))["nodes"] == 1


def test_a_dry_run_of_rows_in_portions_counts_the_same(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(prefix_rows, "PORTION_BYTES", 3_000)
    rows = [["Hi", f"A{i % 3}", f"B{i}"] for i in range(20)]
    roles = ("user", "assistant", "user")
    lines = [{"messages": [{"role": r, "content": t} for r, t in zip(roles, row, strict=True)]} for row in rows]
    file = tmp_path / "x.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    dry = cli.json("import", "--dry-run", str(file))
    assert (dry["conversations"], dry["nodes"], dry["forks"]) == (1, 24, 4)
    done = cli.json("import", str(file))
    assert (done["conversations"], done["nodes"], done["forks"], done["unchanged"]) == (1, 24, 4, 0)
    assert cli.json("ls")[0]["nodes"] == 24
