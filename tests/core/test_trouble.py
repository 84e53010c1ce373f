"""What an answer says of the cloud, whatever it says of the question."""

import pytest

from bulkrestart.core.observation import Observation, Unanswered, Unsent
from bulkrestart.core.trouble import (
    gets_through,
    is_down,
    is_overload,
    is_postponed,
    is_rate_signal,
    is_trouble,
    may_lie_in_server,
)
from tests.core.samples import SERVER, answer, ecs, nova, page

#: What came back, and whether it may be overload, an outage of the cloud, or the fault of one server.
SIGNS = [
    pytest.param(answer(202), False, False, None, id="202"),
    pytest.param(ecs(202, "Common.0024", "Flow limit exceeded."), False, False, None, id="202 with Common.0024"),
    pytest.param(answer(302), False, False, None, id="302"),
    pytest.param(answer(401), False, False, None, id="401"),
    pytest.param(nova(404, f"Instance {SERVER} could not be found."), False, False, None, id="404"),
    pytest.param(answer(408), True, True, True, id="408"),
    pytest.param(nova(409, f"Instance {SERVER} is locked"), False, False, None, id="409"),
    pytest.param(answer(413), False, False, None, id="413"),
    pytest.param(answer(429), False, False, None, id="429"),
    pytest.param(nova(500, "Unexpected API Error."), False, True, True, id="500"),
    pytest.param(nova(501, "Unable to use the feature"), False, False, None, id="501"),
    pytest.param(ecs(501, "Ecs.0603", "The commands are being executed."), False, False, None, id="501 Ecs.0603"),
    pytest.param(page(502, "Bad Gateway"), False, True, False, id="502"),
    pytest.param(page(503, "Service Unavailable"), True, True, False, id="503"),
    pytest.param(ecs(503, "Common.1503", "Api flow control Error"), False, False, None, id="503 that throttles"),
    pytest.param(page(504, "Gateway Time-out"), True, True, True, id="504"),
    pytest.param(Unsent("ConnectError"), False, True, False, id="unsent"),
    pytest.param(Unsent("EMFILE", is_local=True), False, False, False, id="unsent: a limit of this machine"),
    pytest.param(Unanswered("ReadError"), False, True, True, id="unanswered: cut"),
    pytest.param(Unanswered("ReadTimeout", may_come_late=True), True, True, True, id="unanswered: too late"),
]


@pytest.mark.parametrize(("seen", "overloaded", "troubled", "in_server"), SIGNS)
def test_what_an_answer_says_of_the_cloud(
    seen: Observation, overloaded: bool, troubled: bool, in_server: bool | None
) -> None:
    """A 503 or no answer in time may be overload; one that says nothing about the request may open the breaker."""
    assert is_overload(seen) is overloaded
    assert is_trouble(seen) is troubled
    if in_server is not None:
        assert may_lie_in_server(seen) is in_server


DOWN = ("502", "503")
#: Answers about the number of requests, and not about this one.
RATE_SIGNALS = ("202 with Common.0024", "413", "429", "503 that throttles")
#: Answers about the send itself, whatever they say of it.
ABOUT_THE_SEND = ("202", "302", "404", "409", "501", "501 Ecs.0603")


@pytest.mark.parametrize(("name", "seen"), [(sign.id, sign.values[0]) for sign in SIGNS])
def test_what_an_answer_says_of_sends(name: str, seen: Observation) -> None:
    """A gateway says that nothing is behind it; and only an answer about the send shows that sends get through."""
    assert is_down(seen) is (name in DOWN)
    assert gets_through(seen) is (name in ABOUT_THE_SEND)
    assert is_rate_signal(seen) is (name in RATE_SIGNALS)
    assert is_postponed(seen) is (name == "202 with Common.0024")
