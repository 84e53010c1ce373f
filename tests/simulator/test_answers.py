"""Nova's error bodies."""

import json

import pytest

from bulkrestart.simulator import nova_answer
from bulkrestart.simulator.answers import unexpected_error


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "badRequest"),
        (403, "forbidden"),
        (404, "itemNotFound"),
        (409, "conflictingRequest"),
        (413, "overLimit"),
        (429, "overLimit"),
        (500, "computeFault"),
        (503, "serviceUnavailable"),
    ],
)
def test_nova_answer(status: int, name: str) -> None:
    """An error of Nova's is an object whose one key is the name of its status."""
    assert json.loads(nova_answer(status, "why").body) == {name: {"code": status, "message": "why"}}


def test_unexpected_error() -> None:
    """An exception that no controller expects is named in the last line of the message."""
    document = json.loads(unexpected_error("nova.Boom").body)
    assert document["computeFault"]["message"].splitlines()[-1] == "<class 'nova.Boom'>"
