"""Import from SillyTavern: swipes, branches in separate files, all time formats."""

import json
from datetime import datetime

import pytest

from treechat.formats.importers.sillytavern import time_of

HEADER = {"user_name": "Me", "character_name": "Ada", "create_date": "2023-11-22@13h05m21s", "chat_metadata": {"x": 1}}


def message(text, user=False, sent="2023-11-22@13h05m22s", **more):
    return {
        "name": "Me" if user else "Ada",
        "is_user": user,
        "is_system": False,
        "send_date": sent,
        "mes": text,
        **more,
    }


def lines(*records):
    return "\n".join(map(json.dumps, records))


def texts(found):
    """Return (parent's text, role, text) of each message."""
    by_id = {m.node.id: m for d in found.documents for m in d.messages}
    return {(by_id[m.node.parent_id].text if m.node.parent_id else None, m.node.role, m.text) for m in by_id.values()}


def test_swipes_are_siblings_and_the_chat_continues_from_the_chosen_one(read):
    greeting = message("Hello", swipes=["Hello", "Welcome"], swipe_id=0)
    info = [{"send_date": "2023-11-22@13h06m00s", "extra": {"model": "m1"}}]
    reply = message("B", swipes=["A", "B", "C"], swipe_id=1, swipe_info=info, extra={"model": "m2", "reasoning": "Hm"})
    found = read(lines(HEADER, greeting, message("Hi", True), reply, message("Go on", True)), "sillytavern")
    assert [(m.node.role, m.text) for m in found.documents[0].messages] == [
        ("assistant", "Hello"),
        ("user", "Hi"),
        ("assistant", "A"),
        ("assistant", "[thoughts]\n\nB"),
        ("user", "Go on"),
        ("assistant", "C"),
        ("assistant", "Welcome"),
    ]
    last = found.message(found.current)
    assert last.text == "Go on"
    models = [m.turn.model for m in found.documents[0].messages if m.turn]
    assert models == ["m1", "m2"]
    assert found.documents[0].conversation.title == "Ada" and not found.report.dropped


def test_an_edited_message_is_a_sibling_of_its_swipe(read):
    edited = message("B, edited", swipes=["A", "B"], swipe_id=1)
    wrong_id = message("X", swipes=["X", "Y"], swipe_id=7)
    found = read(lines(HEADER, message("Hi", True), edited, wrong_id), "sillytavern")
    assert texts(found) == {
        (None, "user", "Hi"),
        ("Hi", "assistant", "A"),
        ("Hi", "assistant", "B"),
        ("Hi", "assistant", "B, edited"),
        ("B, edited", "assistant", "X"),
        ("B, edited", "assistant", "Y"),
    }


def test_files_that_share_a_prefix_are_one_tree(read):
    shared = [message("Hello"), message("Hi", True, sent=1)]
    a = read(lines(HEADER, *shared, message("One")), "sillytavern")
    b = read(
        lines(HEADER | {"chat_metadata": {"main_chat": "a"}}, *shared, message("Two", swipes=["Two", "One"])),
        "sillytavern",
    )
    assert a.documents[0].source == b.documents[0].source
    ids = [{m.node.id for m in found.documents[0].messages} for found in (a, b)]
    assert ids[0] < ids[1] and len(ids[1]) == 4
    other = read(lines(HEADER, message("Hello", sent="2024-01-01@00h00m00s"), message("Hi", True)), "sillytavern")
    assert other.documents[0].source != a.documents[0].source


def test_newer_headers_have_no_names_and_narrators_and_files_are_kept(read):
    header = {"user_name": "unused", "character_name": "unused", "chat_metadata": {}}
    narrator = message("Night falls.", extra={"type": "narrator"}, is_system=True)
    image = message("Look", extra={"image": "/user/images/Ada/cat.png", "file": {"name": "n.txt", "text": "Notes"}})
    found = read(lines(header, narrator | {"name": "Ada"}, image, {"odd": 1}), "sillytavern")
    assert [(m.node.role, m.text) for m in found.documents[0].messages] == [
        ("system", "Night falls."),
        ("assistant", "Look\n\n[image: cat.png]\n\n[file: n.txt]\n\nNotes"),
    ]
    assert found.documents[0].conversation.title == "Ada"
    assert found.documents[0].messages[0].meta["is_system"] is True
    assert found.report.failed == ["export.bin, line 4: it is not a message"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2023-11-22@13h05m21s", datetime(2023, 11, 22, 13, 5, 21).timestamp()),
        ("2023-11-2 @3h 5m 1s 250ms", datetime(2023, 11, 2, 3, 5, 1, 250_000).timestamp()),
        ("November 22, 2023 1:05pm", datetime(2023, 11, 22, 13, 5).timestamp()),
        ("Nov 2, 2023 12:05 AM", datetime(2023, 11, 2, 0, 5).timestamp()),
        ("2023-11-22T13:05:21.500Z", 1700658321.5),
        (1700658321500, 1700658321.5),
        ("1700658321500", 1700658321.5),
        ("2023-13-45@13h05m21s", None),
        ("Nonsense 99, 2023 1:05pm", None),
        ("yesterday", None),
        ({}, None),
    ],
)
def test_times_of_every_kind(value, expected):
    assert time_of(value) == expected


def test_a_header_alone_has_no_messages(read):
    assert "no messages" in read(lines(HEADER), "sillytavern").report.dropped[0]
