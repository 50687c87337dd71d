"""Text from outside is drawn with its control characters replaced; wrapping of fixed and growing text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from treechat.tui.safe_text import GrowingText, escape_controls, fit, one_line, without_markdown, wrap


def test_escapes_and_controls_are_drawn_as_data() -> None:
    assert escape_controls("\x1b[31mred\x07\x7f\x9b2J") == "␛[31mred␇␡‹9b›2J"
    assert escape_controls("a\r\nb\tc\rd") == "a\nb\tc␍d"
    assert escape_controls("\u202eevil\ud800") == "‹202e›evil�"


@given(st.text())
def test_no_escaped_text_controls_a_terminal(text: str) -> None:
    assert not any(
        (ord(char) < 32 and char not in "\n\t") or 0x7F <= ord(char) < 0xA0 for char in escape_controls(text)
    )
    assert "\n" not in one_line(text)


@given(st.text(), st.integers(min_value=1, max_value=30))
def test_fit_is_exact(text: str, width: int) -> None:
    assert cell_len(fit(one_line(text), width)) == width


@given(st.text(alphabet="ab 漢é"), st.integers(min_value=2, max_value=12))
def test_wrapped_rows_fit_and_lose_only_spaces(line: str, width: int) -> None:
    rows = wrap(line, width)
    assert all(cell_len(row.rstrip()) <= width for row in rows)
    assert "".join(rows).replace(" ", "") == line.replace(" ", "")


@given(st.lists(st.text(alphabet="ab \n漢"), max_size=20), st.integers(min_value=2, max_value=12))
def test_text_that_grew_piece_by_piece_is_wrapped_as_if_it_came_at_once(pieces: list[str], width: int) -> None:
    growing = GrowingText(width)
    for piece in pieces:
        growing.append(piece)
    whole = GrowingText(width, "".join(pieces))
    assert [row.rstrip() for row in growing.rows] == [row.rstrip() for row in whole.rows]


def test_an_append_touches_only_the_last_row() -> None:
    growing = GrowingText(20, "word " * 10_000)
    rows = len(growing.rows)
    assert growing.append("more") >= rows - 1


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("Stay in **Florence**: *everything* is near", "Stay in Florence: everything is near"),
        ("# Plan\n\n## Day one\nthe `Uffizi`", "Plan Day one the Uffizi"),
        ("```python\nprint(2 * 3)\n```", "python print(2 * 3)"),
        ("2*3*4 is **24**, #1 of C# and ***both***", "2*3*4 is 24, #1 of C# and both"),
        ("see [the map](https://example.org/a_b) and ![a view](v.png)", "see the map and a view"),
        ("* one\n* two", "* one * two"),
        ("~~~sh\nls\n~~~", "sh ls"),
        ("**\x1b[31mred**", "␛[31mred"),
        ("***", "***"),
        ("", ""),
    ],
)
def test_a_row_shows_no_signs_of_markdown(text: str, row: str) -> None:
    assert without_markdown(text) == row


def test_markdown_is_removed_from_a_hostile_row_in_linear_time() -> None:
    for piece in ("[", "*", "a*", "](", "[a](", "`*", "# "):
        text = piece * 20_000
        assert len(without_markdown(text)) <= len(text)
