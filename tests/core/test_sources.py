"""A source is judged once for a whole run: which answers mean that it is unreadable, and which do not."""

import pytest

from bulkrestart.core.observation import Observation, Unanswered, Unsent
from bulkrestart.core.sources import SourceHealth
from tests.core.samples import answer, ecs, gateway, keystone, nova, page

POLICY = "Policy doesn't allow os_compute_api:os-instance-actions:list to be performed."
#: The cloud itself says that we may not read the source, or that it does not exist.
FINAL = {
    "forbidden": nova(403, POLICY),
    "forbidden, in ECS's words": ecs(403, "Ecs.0003", "no permission"),
    "not implemented": nova(501, "not here"),
    "no such method": nova(405, "Method not allowed"),
    "no such API": gateway(404, "APIGW.0101", "The API does not exist"),
}
#: Answers that count only if they repeat.
ODD = {
    "401 where the token is good elsewhere": keystone(has_stale_token=True),
    "403 of a firewall": page(403, "Forbidden"),
    "404 of a gateway": page(404, "default backend - 404"),
    "501 of a proxy": page(501, "Not Implemented"),
    "a page": page(200, "Please sign in"),
    "JSON of another kind": answer(200, b'{"actions": []}'),
    "nothing": answer(204),
    "302": answer(302),
    "406": nova(406, "Version 2.60 is not supported"),
}
#: Answers that are about the cloud, the token or one server.
NEUTRAL = {
    "503": answer(503),
    "500 of Nova": nova(500, "Unexpected API Error."),
    "429": answer(429),
    "401 of a token that was never good": keystone(),
    "404 of Nova": nova(404, "Instance x could not be found."),
    "cut short": answer(200, b"{", is_cut_short=True),
    "unanswered": Unanswered("ReadTimeout"),
    "unsent": Unsent("ConnectError"),
}


@pytest.mark.parametrize("seen", FINAL.values(), ids=FINAL)
def test_what_the_cloud_says_itself_is_final(seen: Observation) -> None:
    """One answer is enough, and takes the place of all further ones."""
    source = SourceHealth()

    assert source.judge(seen, 0)
    assert source.permanent_answer is not None
    assert source.permanent_answer.is_permanent
    assert not source.judge(seen, 1), "it is said once"


@pytest.mark.parametrize("seen", ODD.values(), ids=ODD)
def test_an_odd_answer_has_to_come_again(seen: Observation) -> None:
    """An odd answer counts again only after other sources were read; otherwise all requests may be answered so."""
    source = SourceHealth()

    assert not source.judge(seen, 5)
    assert not source.judge(seen, 5)
    assert source.judge(seen, 6)


@pytest.mark.parametrize("seen", [*FINAL.values(), *ODD.values()], ids=[*FINAL, *ODD])
def test_a_source_that_was_read_is_not_given_up_for_a_few(seen: Observation) -> None:
    """A successful read outweighs a few odd answers, but not many in a row."""
    source = SourceHealth()
    source.judge((), 0)

    assert not any(source.judge(seen, good) for good in range(1, 10))
    assert source.judge(seen, 10)


@pytest.mark.parametrize("seen", ODD.values(), ids=ODD)
def test_a_read_ends_the_row(seen: Observation) -> None:
    """One node of the cloud may answer oddly."""
    source = SourceHealth()
    source.judge(seen, 1)
    source.judge((), 2)

    assert not source.judge(seen, 3)
    assert source.permanent_answer is None


@pytest.mark.parametrize("seen", NEUTRAL.values(), ids=NEUTRAL)
def test_what_is_about_something_else_is_no_judgement(seen: Observation) -> None:
    """An outage, a refused token or a deleted server says nothing about the source."""
    source = SourceHealth()

    assert not any(source.judge(seen, good) for good in range(30))


def test_a_log_that_no_server_has() -> None:
    """Nova's "not found" is about one server, unless it comes for servers that exist."""
    absent = nova(404, "Instance x could not be found.")
    shown, unknown = SourceHealth(), SourceHealth()

    assert [shown.judge(absent, good, is_shown=True) for good in (1, 1, 2)] == [False, False, True]
    assert not any(unknown.judge(absent, good) for good in range(30))


def test_a_source_that_was_read_in_another_way() -> None:
    """A row of the action log shows that the log can be read, and one 403 does not end it."""
    source = SourceHealth()
    source.record_read()

    assert not source.judge(nova(403, "Policy"), 1)
    assert source.permanent_answer is None
