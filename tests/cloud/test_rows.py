"""A long list is read row by row, and means what json reads of it in one go."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkrestart.cloud.rows import Rows

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


def read(text: str) -> tuple[list[object], dict[str, object], bool]:
    """Read a text to its end."""
    rows = Rows(text, "servers")
    return list(rows), rows.others, rows.has_list


@given(
    before=st.dictionaries(st.text(), VALUES, max_size=3),
    servers=st.lists(VALUES, max_size=5),
    after=st.dictionaries(st.text(), VALUES, max_size=3),
    indent=st.none() | st.integers(0, 2),
)
def test_objects_with_the_list(
    before: dict[str, Any], servers: list[Any], after: dict[str, Any], indent: int | None
) -> None:
    """Wherever the list stands, and however it is written, its rows and the other members are what json reads."""
    document = {name: value for name, value in before.items() if name != "servers"}
    document["servers"] = servers
    document |= {name: value for name, value in after.items() if name != "servers"}
    rows, others, has_list = read(json.dumps(document, indent=indent))
    assert rows == servers
    assert others == {name: value for name, value in document.items() if name != "servers"}
    assert has_list


@given(document=VALUES)
def test_other_documents(document: object) -> None:
    """What is no object is refused, and an object without the list has no rows."""
    text = json.dumps(document)
    if not isinstance(document, dict):
        with pytest.raises(ValueError, match="missing"):
            read(text)
    elif not isinstance(document.get("servers"), list):
        assert read(text) == ([], document, False)


WHOLE = '{"servers": [{"id": "a"}, {"id": "b"}], "servers_links": [{"rel": "next"}]}'


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_text_that_is_cut_short(length: int) -> None:
    """Cut at any place it is refused, though rows may have been given by then."""
    with pytest.raises(ValueError, match=r"."):
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
    with pytest.raises(ValueError, match=r"."):
        read(text)


def test_a_list_that_is_empty() -> None:
    """It is a list all the same."""
    assert read(' {"servers" : [ ] } ') == ([], {}, True)
    assert read("{}") == ([], {}, False)


def test_an_object_that_is_too_deep() -> None:
    """It is the error that json raises."""
    with pytest.raises(RecursionError):
        read('{"servers": [' + "[" * 100_000)
