"""Records of untrusted JSON: equal to the standard parser's result for any chunk size, and limited in size."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treechat.formats.reading import deep_json, records

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)
objects = st.dictionaries(st.text(max_size=4), values, max_size=4)


class Drip(io.BytesIO):
    """A stream that returns at most 7 bytes per read."""

    def read(self, size=-1):
        return super().read(7)


@settings(max_examples=150, deadline=None)
@given(st.lists(objects | st.lists(values, max_size=3), max_size=6), st.sampled_from([None, 1]), st.booleans())
def test_elements_are_those_of_the_array(elements, indent, as_array):
    text = (
        json.dumps(elements, indent=indent) if as_array else "\n".join(json.dumps(e, indent=indent) for e in elements)
    )
    found = [json.loads(raw) for raw in records.split(Drip(text.encode())) if raw is not None]
    if as_array or not elements or isinstance(elements[0], dict):
        assert found == elements


@settings(max_examples=150, deadline=None)
@given(values, st.sampled_from([None, 2]))
def test_the_iterative_parser_reads_what_the_standard_one_reads(value, indent):
    text = json.dumps(value, indent=indent)
    assert deep_json.parse(text, json.JSONDecoder()) == json.loads(text)


@settings(max_examples=300, deadline=None)
@given(st.text('[]{},:"\\ 1ae-.truefalsn', max_size=12))
def test_the_iterative_parser_refuses_what_the_standard_one_refuses(text):
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):
            deep_json.parse(text, json.JSONDecoder())
    else:
        assert deep_json.parse(text, json.JSONDecoder()) == expected


def test_a_record_too_large_is_skipped_and_the_next_one_is_read(monkeypatch):
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 1000)
    monkeypatch.setattr(records, "PEEK_BYTES", 64)
    large = [{"a": "x" * 5000}, {"a": ["y"] * 2000}, {"b": '"\\' * 3000}]
    for one in large:
        text = json.dumps([{"n": 1}, one, {"n": 2}])
        assert list(records.split(io.BytesIO(text.encode()))) == [b'{"n": 1}', None, b'{"n": 2}']


def test_a_string_without_end_is_not_held(monkeypatch):
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 1000)
    monkeypatch.setattr(records, "PEEK_BYTES", 64)
    assert list(records.split(io.BytesIO(b'[{"a": "' + b"x\\" * 50_000))) == [None]


def test_values_are_counted(read, monkeypatch):
    monkeypatch.setattr(records, "MAX_RECORD_VALUES", 50)
    report = read(json.dumps([{"mapping": {"a": {}}}, {"mapping": {str(i): [] for i in range(100)}}])).report
    assert "more than 50 values" in report.failed[0]


def test_invalid_utf_8_and_lone_surrogates_are_replaced_and_counted(read):
    node = '{"mapping": {"a": {"message": {"author": {"role": "user"}, "content": {"parts": ["x\\ud800y\xff"]}}}}}'
    found = read(node.encode("latin-1"))
    assert found.nodes()["a"][2] == "x\ufffdy\ufffd"
    assert found.report.dropped == ["export.bin, item 1: 2 invalid characters were replaced"]


def test_control_characters_in_strings_are_kept():
    assert records.parse_json('{"a": "x\ty\n"}') == {"a": "x\ty\n"}


def test_a_value_nested_100_000_deep_is_read():
    depth = 100_000
    value = records.parse_json('{"a": ' * depth + "1" + "}" * depth)
    for _ in range(depth):
        value = value["a"]
    assert value == 1
