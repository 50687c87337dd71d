"""Inputs of an import: databases in a zip, 64-bit zips, and files of other kinds."""

import io
import json
import sqlite3
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.treechat.formats.writers import WrittenMessage, llm
from treechat.errors import FormatError
from treechat.formats.importers.registry import importer_for
from treechat.formats.reading import inputs
from treechat.formats.reading.inputs import inputs_of
from treechat.store import Store

CHAT = [{"messages": [{"role": "user", "content": "Hi"}]}]
TREE = [
    WrittenMessage(None, "user", "Hello"),
    WrittenMessage(0, "assistant", "One"),
    WrittenMessage(0, "assistant", "Two"),
]


def zipped(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def as_zip64(data: bytes, num_directory_bytes: int | None = None) -> bytes:
    """Return the zip with 64-bit sizes: all ones in its last record, and the real sizes in the record before."""
    end = data.rindex(b"PK\5\6")
    count, size, offset = struct.unpack("<HII", data[end + 10 : end + 20])
    size = size if num_directory_bytes is None else num_directory_bytes
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    last = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:end] + record + locator + last


def test_a_database_in_a_zip_is_read_with_the_json_and_leaves_no_copy(read, tmp_path, monkeypatch):
    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(copies))
    data = zipped({"backup/logs.db": llm(TREE, tmp_path / "made.db"), "chat.json": json.dumps(CHAT).encode()})
    found = read(data)
    assert sorted(len(document.messages) for document in found.documents) == [1, 3]
    assert not found.report.failed and not any(copies.iterdir())


def test_companion_files_of_macos_are_skipped(read, tmp_path):
    content, twin = json.dumps(CHAT).encode(), b"\0\5\x16\7Mac OS X"
    found = read(zipped({"chat.json": content, "__MACOSX/._chat.json": twin}))
    assert len(found.documents) == 1 and not found.report.failed
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "unpacked" / "chat.json").write_bytes(content)
    (tmp_path / "unpacked" / "._chat.json").write_bytes(twin)
    with inputs_of(tmp_path / "unpacked") as files:
        assert [file.name for file in files] == ["chat.json"]


def test_a_cut_off_database_in_a_zip_is_reported(read, tmp_path):
    whole = llm(TREE, tmp_path / "made.db")
    with pytest.raises(FormatError, match=r"logs\.db cannot be read"):
        read(zipped({"logs.db": whole[: len(whole) // 2]}))


def test_a_database_in_a_zip_that_would_fill_the_disk_is_not_unpacked(read, tmp_path, monkeypatch):
    data = zipped({"logs.db": llm(TREE, tmp_path / "made.db")})
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=30_000))
    with pytest.raises(FormatError, match="temporary space") as caught:
        read(data)
    assert "Unpack" in (caught.value.hint or "")


def test_a_zip_whose_sizes_are_in_64_bits_is_read(read):
    found = read(as_zip64(zipped({"chat.json": json.dumps(CHAT).encode()})), "openai")
    assert [m.text for m in found.documents[0].messages] == ["Hi"]


def test_a_64_bit_central_directory_is_limited_too(read):
    data = as_zip64(zipped({"chat.json": b"[]"}), inputs.MAX_DIRECTORY_BYTES + 1)
    with pytest.raises(FormatError, match="too many members"):
        read(data)
    # Without the 64-bit record the size of the directory is unknown.
    with pytest.raises(FormatError, match="too many members"):
        read(as_zip64(zipped({"chat.json": b"[]"})).replace(b"PK\6\6", b"PK\6\0"))


@pytest.mark.slow
def test_more_members_than_16_bits_can_count(read):
    data = zipped({f"{i}.txt": b"" for i in range(66_000)} | {"chat.json": json.dumps(CHAT).encode()})
    assert len(read(data, "openai").documents) == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"%PDF-1.7\n%\xe2", "a PDF document"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>chat</body></html>", "a web page"),
        (b"<HTML>", "a web page"),
        (b"{\\rtf1 hello}", "RTF"),
        (b"\x89PNG\r\n\x1a\n", "an image"),
        (b"\x1f\x8b\x08rest", "Unpack it"),
        (b"PAR1abc", "a Parquet table"),
        ("[]".encode("utf-16"), "UTF-16"),
        ('{"a": 1}'.encode("utf-16-le"), "UTF-16"),
        ('[{"a": 1}]'.encode("utf-16-be"), "UTF-16"),
        (zipped({"[Content_Types].xml": b"<x/>", "word/document.xml": b"<x/>"}), "an office document"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_its_kind_and_a_hint(tmp_path, content, sentence):
    path = tmp_path / "chat.json"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught, inputs_of(path):
        pass
    assert sentence in str(caught.value) and caught.value.hint
    with pytest.raises(FormatError), inputs_of(Path("-"), io.BytesIO(content)):
        pass


def test_treechats_own_database_is_refused_with_a_hint(tmp_path):
    with Store.open(tmp_path / "mine.db") as store:
        store.create_conversation("T")
    with inputs_of(tmp_path / "mine.db") as [file], pytest.raises(FormatError, match="treechat's own") as caught:
        importer_for(file)
    assert "--db" in (caught.value.hint or "")


def test_an_unknown_database_is_in_no_known_format(tmp_path):
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE history (url TEXT)")
    conn.close()
    with inputs_of(path) as [file]:
        assert importer_for(file) is None
