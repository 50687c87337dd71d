"""Texts of pieces: the layout loses no text, doubtful tokens are found, words are joined from tokens."""

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from treechat.chat.forking import MessageToken
from treechat.tui.actions.branches import words_of
from treechat.tui.screens.token_text import END, PARTIAL, lay_out, next_doubt


@given(st.lists(st.text(st.sampled_from("ab \n語\t\x1b"), max_size=6), max_size=20), st.integers(8, 20))
def test_each_piece_is_drawn_whole_and_rows_fit(texts, width):
    rows = lay_out(texts, width)
    shown = [""] * len(texts)
    for row in rows:
        assert cell_len("".join(part for _, part in row)) <= width
        for index, part in row:
            shown[index] += part
    for text, drawn in zip(texts, shown, strict=True):
        expected = text.replace("\n", "↵").replace("\t", "⇥").replace("\x1b", "␛")
        assert drawn == expected or drawn in (END, PARTIAL)


def test_rows_break_at_spaces_and_line_ends():
    rows = lay_out(["The", " quick", " brown\n", "fox"], 12)
    assert ["".join(part for _, part in row) for row in rows] == ["The quick", " brown↵", "fox"]


def test_doubt_is_walked_in_both_directions():
    probabilities = [0.9, 0.4, None, 0.1, 0.8]
    assert next_doubt(probabilities, -1, 1) == 1
    assert next_doubt(probabilities, 1, 1) == 3
    assert next_doubt(probabilities, 3, -1) == 1
    assert next_doubt(probabilities, 3, 1) is None


def test_without_doubtful_tokens_the_least_likely_count_as_doubtful():
    assert next_doubt([0.9, 0.7, 0.8], -1, 1) == 1
    assert next_doubt([None, None], -1, 1) is None


def test_words_are_joined_from_tokens():
    pieces = [
        MessageToken(i, text, None) for i, text in enumerate(["Flo", "rence", " in", " May", "", ".\n", "Yes", ""])
    ]
    assert words_of(pieces) == ([0, 2, 3, 6], ["Florence", " in", " May.\n", "Yes"])
