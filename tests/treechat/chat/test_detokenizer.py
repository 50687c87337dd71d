"""Detokenizer: the joined pieces are the text, even if tokens cut characters."""

from hypothesis import given
from hypothesis import strategies as st

from treechat.chat.tokens.detokenizer import Detokenizer


def decode(ids) -> str:
    return bytes(ids).decode("utf-8", errors="replace")


@given(st.text(max_size=40), st.integers(0, 20))
def test_pieces_joined_are_the_text(text: str, cut: int):
    data = list(text.encode("utf-8", errors="replace"))
    cut = min(cut, len(text))
    known = len(text[:cut].encode("utf-8", errors="replace"))
    stream = Detokenizer(decode, data[:known])
    pieces = [stream.add(token_id) for token_id in data[known:]]
    pieces.append(stream.finish())
    assert "".join(pieces) == decode(data[known:])


def test_a_character_is_returned_when_it_is_complete():
    stream = Detokenizer(decode)
    pieces = [stream.add(byte) for byte in "€!".encode()]
    assert pieces == ["", "", "€", "!"]


def test_bytes_that_form_no_character_are_returned_after_a_limit():
    stream = Detokenizer(decode)
    pieces = [stream.add(0x80) for _ in range(20)]
    assert "".join(pieces).count("\ufffd") >= 8
    assert "".join(pieces) + stream.finish() == "\ufffd" * 20


def test_a_character_cut_off_before_is_returned_when_it_is_complete():
    data = list("5 €!".encode())
    stream = Detokenizer(decode, data[:4])
    assert stream.pending == "\ufffd"
    assert [stream.add(byte) for byte in data[4:]] == ["€", "!"]
    assert Detokenizer(decode, data[:2]).pending == ""
