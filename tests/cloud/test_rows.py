"""A long list is read row by row, and means what json reads of it in one go."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkrestart.cloud.rows import Rows
from bulkrestart.core.secrets import SecretMask

NAMES = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=10)


def keep(row: object, _: SecretMask) -> object:
    """Keep a row as it is."""
    return row


class Everything(frozenset[str]):
    """The names of all members."""

    def __contains__(self, name: object) -> bool:
        return True

    def __or__(self, other: object) -> "Everything":
        return self


def rows_of(data: bytes, size: int | None = None) -> Rows[object]:
    """Read bytes to their end, in pieces of this size; None for all at once."""
    rows = Rows("servers", keep, Everything())
    for start in range(0, len(data), size or len(data) or 1):
        rows.feed(data[start : start + size] if size else data)
        while rows.step():
            pass
    rows.end()
    while rows.step():
        pass
    return rows


def read(text: str, size: int | None = None) -> tuple[list[object], dict[str, object], bool]:
    """Read a text to its end.

    Raises:
        ValueError: It is not one object.
    """
    rows = rows_of(text.encode(), size)
    if not rows.is_valid:
        raise ValueError("not one object")
    return rows.items, rows.others, rows.has_list


@given(
    before=st.dictionaries(NAMES, VALUES, max_size=3),
    servers=st.lists(VALUES, max_size=5),
    after=st.dictionaries(NAMES, VALUES, max_size=3),
    indent=st.none() | st.integers(0, 2),
    size=st.none() | st.integers(1, 9),
)
def test_objects_with_the_list(
    before: dict[str, Any], servers: list[Any], after: dict[str, Any], indent: int | None, size: int | None
) -> None:
    """Wherever the list stands, and in whatever pieces it comes, its rows and the other members are what json reads."""
    document = {name: value for name, value in before.items() if name != "servers"}
    document["servers"] = servers
    document |= {name: value for name, value in after.items() if name != "servers"}
    rows, others, has_list = read(json.dumps(document, indent=indent, ensure_ascii=not indent), size)
    assert rows == servers
    assert others == {name: value for name, value in document.items() if name != "servers"}
    assert has_list


@given(document=VALUES)
def test_other_documents(document: object) -> None:
    """What is no object is refused, and an object without the list has no rows."""
    text = json.dumps(document)
    if not isinstance(document, dict):
        with pytest.raises(ValueError, match="not one object"):
            read(text)
    elif not isinstance(document.get("servers"), list):
        assert read(text) == ([], document, False)


WHOLE = '{"servers": [{"id": "a"}, {"id": "b"}], "servers_links": [{"rel": "next"}]}'


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_text_that_is_cut_short(length: int) -> None:
    """Cut at any place it is refused, though rows may have been given by then."""
    with pytest.raises(ValueError, match="not one object"):
        read(WHOLE[:length])


@pytest.mark.parametrize(
    "text",
    [
        f"{WHOLE} x",
        f"{WHOLE}{WHOLE}",
        '{"servers": [1 2]}',
        '{"servers": [1,]}',
        '{"servers": [,1]}',
        '{"servers": [1],}',
        '{"servers": [1]]',
        "{5: [1]}",
        '{"servers" [1]}',
        "<html>",
    ],
)
def test_text_that_is_no_json(text: str) -> None:
    """What json refuses is refused."""
    with pytest.raises(ValueError, match="not one object"):
        read(text)


def test_a_list_that_is_empty() -> None:
    """It is a list all the same."""
    assert read(' {"servers" : [ ] } ') == ([], {}, True)
    assert read("{}") == ([], {}, False)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"servers": [' + "[" * 100_000, id="too deep"),
        pytest.param('{"servers": [' + "9" * 5_000 + "]}", id="a number that int() refuses"),
        pytest.param('{"servers": ["' + "x" * 2**19 + '"]}', id="a long row"),
        pytest.param('{"' + "x" * 2**19 + '": 1}', id="a long name"),
        pytest.param('{"other": [' + "1," * 2**18 + "1]}", id="a long member"),
        pytest.param('{"servers": [1' + " " * 2**19 + "]}", id="a row, and long white space"),
        pytest.param('{"servers": [1 x' + " " * 2**19 + "]}", id="a row that is followed by something else"),
        pytest.param('{"servers": [' + "1," * 20_000 + "1]}", id="too many rows"),
        pytest.param("{" + '"a": 1, ' * 1_000 + '"servers": []}', id="too many members"),
    ],
)
def test_text_out_of_bounds(text: str) -> None:
    """What would take long to read, or much memory to keep, is refused; what was read by then is dropped."""
    rows = rows_of(text.encode(), 65536)
    assert (rows.is_valid, rows.items, rows.others) == (False, [], {})
    rows.feed(b"more")
    assert not rows.step()


def test_text_within_bounds() -> None:
    """A large row is read, and so are many; white space may be of any length."""
    assert read('{"servers": ["' + "x" * 2**17 + '"]}', 65536)[0] == ["x" * 2**17]
    assert len(read('{"servers": [' + "1," * 19_999 + "1]}", 65536)[0]) == 20_000
    assert read("{" + '"a": 1, ' * 999 + '"servers": [1]}', 65536)[0] == [1]
    assert read(" " * 2**20 + '{"servers":' + " " * 2**20 + "[" + " " * 2**20 + "1]}", 65536)[0] == [1]


@pytest.mark.parametrize("data", [b'{"servers": ["\xff"]}', b'{"servers": ["\xc3', "{}".encode("utf-16")])
@pytest.mark.parametrize("size", [None, 1])
def test_bytes_that_are_no_text(data: bytes, size: int | None) -> None:
    """What is not UTF-8 is refused; a mark of the byte order before UTF-8 is not."""
    assert not rows_of(data, size).is_valid
    assert rows_of(b"\xef\xbb\xbf" + WHOLE.encode(), size).is_valid


def test_reading_pauses() -> None:
    """Rows are read some at a time, and other members one at a time."""
    rows = Rows("servers", keep)
    rows.feed(json.dumps({"a": 1, "b": 2, "servers": [1] * 120}).encode())
    steps = 0
    while rows.step():
        steps += 1
    assert steps == 8
    assert len(rows.items) == 120


def test_only_members_that_are_named_are_kept() -> None:
    """Other members are read past, and of a member that comes twice the last counts, as json has it."""
    rows = Rows("servers", keep, frozenset({"servers_links"}))
    rows.feed(b'{"a": [1], "servers_links": [1], "servers": [1], "servers": {"b": 1}, "servers_links": [2]}')
    rows.end()
    while rows.step():
        pass
    assert rows.is_valid
    assert (rows.items, rows.others) == ([1], {"servers": {"b": 1}, "servers_links": [2]})


@pytest.mark.parametrize("size", range(1, 30))
def test_text_is_cleaned_before_it_is_read(size: int) -> None:
    """A secret is masked before the text is read, also where two pieces meet in it."""
    rows = Rows("servers", keep)
    rows.secrets = SecretMask(["s3cret-token-1"])
    data = b'{"servers": [{"name": "a-s3cret-token-1"}, "s3cret-token-1", "s3cret"]}'
    for start in range(0, len(data), size):
        rows.feed(data[start : start + size])
        while rows.step():
            pass
    assert rows.items == [{"name": "a-***"}, "***", "s3cret"]
