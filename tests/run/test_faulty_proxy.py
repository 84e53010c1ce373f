"""A network that fails never doubles a reboot and never loses a server: real connections, and the cloud's own count."""

from dataclasses import dataclass

import anyio
import httpx
import pytest

from bulkrestart import Outcome, Proof, RebootType, Report, RestartClient, Token
from bulkrestart.simulator import Cloud, LoopbackCloud
from tests.cloud.loopback import leaves_generators
from tests.faulty_proxy import (
    KEPT,
    OPENED,
    QUICK_SENDS,
    STALLS,
    Choose,
    FaultyProxy,
    Kind,
    faulty_proxy,
    first_sends,
    nothing,
    seeded,
)

#: Seconds after which a late request is delivered here.
LATE = 0.3
REBOOT_SECONDS = (0.1, 0.3)
REQUEST_TIMEOUT = 1.5
#: Seconds in place of the library's own. This proxy delivers nothing later than `LATE`, and nothing after a time-out:
#: graces of seconds are as safe before it as the real ones are before real gateways.
SECONDS = {
    "core.look.GRACE": 2.0,
    "core.look.LATE_GRACE": 2.0,
    "core.calibration.UNMEASURED_LAG": 0.0,
    "run.submit.LAST_CEILING": 1.0,
    "run.settle.FIRST_INTERVAL": 0.5,
    "run.settle.LAST_INTERVAL": 1.0,
}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for seconds where the library waits for minutes."""
    for place, seconds in SECONDS.items():
        monkeypatch.setattr(f"bulkrestart.{place}", seconds)


def first(kind: Kind, what: str) -> Choose:
    """Choose a kind for the first of something: of connections, or of the requests by one method for each path."""
    return lambda came, number: kind if came.startswith(what) and number == 0 else None


def restart(backend: str, proxy: FaultyProxy, cloud: Cloud, *, reboot_type: RebootType = RebootType.SOFT) -> Report:
    """Restart every server of a cloud through a proxy, with the client that the library makes for itself."""

    async def main() -> Report:
        async with RestartClient(proxy.endpoint, auth=Token(cloud.token)) as client:
            with anyio.fail_after(60):
                return await client.restart(cloud.ids, reboot_type=reboot_type, request_timeout=REQUEST_TIMEOUT)

    return anyio.run(main, backend=backend)


def assert_each_completed_once(report: Report, cloud: Cloud) -> None:
    """Hold that each server is in the report once, in order, came back, was asked once and cycled once."""
    assert [(result.server_id, result.outcome, result.proof) for result in report] == [
        (server_id, Outcome.COMPLETED, Proof.ACTION) for server_id in cloud.ids
    ]
    assert cloud.posts == dict.fromkeys(cloud.ids, 1)
    assert cloud.cycles == dict.fromkeys(cloud.ids, 1)


@dataclass(frozen=True)
class Case:
    """What one send meets: what a plain client sees of it, and whether the cloud has the request by then."""

    kind: Kind
    error: type[httpx.TransportError]
    is_delivered: bool


CASES = [
    Case(Kind.LOST, httpx.RemoteProtocolError, is_delivered=True),
    Case(Kind.CUT, httpx.RemoteProtocolError, is_delivered=False),
    Case(Kind.STALL, httpx.ReadTimeout, is_delivered=True),
    Case(Kind.STALL_BEFORE, httpx.ReadTimeout, is_delivered=False),
    Case(Kind.RESET, httpx.ReadError, is_delivered=True),
    Case(Kind.TRUNCATE, httpx.RemoteProtocolError, is_delivered=True),
    Case(Kind.LATE, httpx.RemoteProtocolError, is_delivered=False),
]


class TestTheProxy:
    """It does what it says, and counts it."""

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
    def test_fails_a_send_as_it_says(self, case: Case) -> None:
        """A client meets the failure of the kind, and the cloud has the request or not; a late one comes in the end."""
        cloud = Cloud(1, reboot_seconds=REBOOT_SECONDS)
        with LoopbackCloud(cloud) as served:
            with faulty_proxy(served.endpoint, first(case.kind, "POST"), late=LATE) as proxy, client_of(cloud) as http:
                with pytest.raises(case.error) as caught:
                    post(http, proxy, cloud)
                assert type(caught.value) is case.error
                assert cloud.posts.total() == case.is_delivered
            assert cloud.posts.total() == (case.is_delivered or case.kind is Kind.LATE)
        assert proxy.sends == {case.kind: 1}
        assert not proxy.looks
        assert not proxy.connections

    def test_delivers_twice(self) -> None:
        """A send that is delivered twice reaches the cloud twice, and the client gets the second answer."""
        cloud = Cloud(1)
        with LoopbackCloud(cloud) as served, faulty_proxy(served.endpoint, first(Kind.TWICE, "POST")) as proxy:
            with client_of(cloud) as http:
                assert post(http, proxy, cloud).status_code == 409
                assert http.get(proxy.endpoint).status_code == 404
            assert [*proxy.again.values()] == [1]
            assert proxy.came[OPENED] == 1
        assert cloud.posts == {cloud.ids[0]: 2}

    def test_passes_what_it_does_not_fail(self) -> None:
        """Requests and answers come through as they are, one after the other on one connection."""
        cloud = Cloud(2)
        with LoopbackCloud(cloud) as served, faulty_proxy(served.endpoint, nothing) as proxy:
            with client_of(cloud) as http:
                listed = http.get(f"{proxy.endpoint}/servers/detail?limit=1")
                assert [server["id"] for server in listed.json()["servers"]] == cloud.ids[:1]
                assert http.get(f"{proxy.endpoint}/nothing").status_code == 404
                assert post(http, proxy, cloud).status_code == 202
                assert post(http, proxy, cloud).status_code == 409
            assert proxy.came[OPENED] == 1
            # The last of four may not be counted yet: its answer came first.
            assert proxy.came[KEPT] in (3, 4)
            assert cloud.posts == {cloud.ids[0]: 2}

    def test_refuses_a_new_connection(self) -> None:
        """The request on a connection that is closed at once fails, and the cloud never has it; the next one has."""
        cloud = Cloud(1)
        with LoopbackCloud(cloud) as served, faulty_proxy(served.endpoint, first(Kind.REFUSED, OPENED)) as proxy:
            with client_of(cloud) as http:
                with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)):
                    post(http, proxy, cloud)
                assert not cloud.posts
                assert post(http, proxy, cloud).status_code == 202
            assert proxy.connections == {Kind.REFUSED: 1}

    def test_drops_a_kept_connection(self) -> None:
        """The answer before it is whole, and nothing more comes by that connection."""
        cloud = Cloud(1)
        with LoopbackCloud(cloud) as served, faulty_proxy(served.endpoint, first(Kind.DROPPED, KEPT)) as proxy:
            with client_of(cloud) as http:
                assert http.get(proxy.endpoint).status_code == 404
            with client_of(cloud) as http:
                assert post(http, proxy, cloud).status_code == 202
            assert proxy.connections == {Kind.DROPPED: 1}

    def test_chooses_by_seed(self) -> None:
        """The same seed is the same fate for the nth request for a path, another seed another; shares are kept to."""
        paths = [f"POST /{number}/action" for number in range(1000)]
        fates = [list(map(seeded(seed, sends=0.3), paths, [0] * len(paths))) for seed in (1, 1, 2)]
        assert fates[0] == fates[1] != fates[2]
        assert {kind for kind in fates[0] if kind} == set(QUICK_SENDS)
        assert 250 < sum(kind is not None for kind in fates[0]) < 350
        assert not any(map(seeded(1, sends=1.0), ["GET /0/action", "POST /0", OPENED, KEPT], [0] * 4))


def client_of(cloud: Cloud) -> httpx.Client:
    """Make a client that has nothing to do with the library."""
    return httpx.Client(headers={"X-Auth-Token": cloud.token}, timeout=1.0, trust_env=False)


def post(http: httpx.Client, proxy: FaultyProxy, cloud: Cloud) -> httpx.Response:
    """Ask for a reboot of the first server."""
    return http.post(f"{proxy.endpoint}/servers/{cloud.ids[0]}/action", json={"reboot": {"type": "SOFT"}})


class TestOneFault:
    """The first send to a server meets one failure, of a known kind."""

    def test_comes_back_from_each_kind(self) -> None:
        """Each server is rebooted once, and sent to again only where the cloud never had the first request."""
        kinds = [*QUICK_SENDS, *STALLS]
        cloud = Cloud(len(kinds), reboot_seconds=REBOOT_SECONDS)
        choose = first_sends(dict(zip(cloud.ids, kinds, strict=True)))
        with LoopbackCloud(cloud) as served, faulty_proxy(served.endpoint, choose, late=LATE) as proxy:
            report = restart("asyncio", proxy, cloud)
        assert proxy.sends == dict.fromkeys(kinds, 1)
        assert_each_completed_once(report, cloud)
        assert {kind: len(result.attempts) for kind, result in zip(kinds, report, strict=True)} == {
            kind: 2 if kind in (Kind.CUT, Kind.STALL_BEFORE) else 1 for kind in kinds
        }

    def test_comes_back_from_a_refused_connection(self) -> None:
        """A send by a connection that is closed before its first byte is read is sent again: one reboot in all."""
        cloud = Cloud(1, reboot_seconds=REBOOT_SECONDS)

        def choose(what: str, number: int) -> Kind | None:
            # The look before the run has the first connection; without that, the send needs another.
            if what == OPENED and number == 1:
                return Kind.REFUSED
            return Kind.DROPPED if what == KEPT and number == 0 else None

        with LoopbackCloud(cloud) as served, faulty_proxy(served.endpoint, choose) as proxy:
            report = restart("asyncio", proxy, cloud)
        assert proxy.connections == {Kind.DROPPED: 1, Kind.REFUSED: 1}
        assert_each_completed_once(report, cloud)
        assert len(report.results[0].attempts) == 2


class TestAFleet:
    """A third of all that is sent, and some of the looks and connections, fail."""

    @pytest.mark.unmeasured
    @pytest.mark.parametrize(
        ("backend", "servers", "reboot_type"),
        [("asyncio", 150, RebootType.SOFT), ("trio", 60, RebootType.HARD)],
    )
    @leaves_generators
    def test_comes_back(self, backend: str, servers: int, reboot_type: RebootType) -> None:
        """Every server is rebooted once, asked once, and in the report once; none is in doubt."""
        cloud = Cloud(servers, reboot_seconds=REBOOT_SECONDS)
        kinds = [*QUICK_SENDS, *STALLS]
        choose = seeded(1, sends=0.3, looks=0.1, connections=0.1, send_kinds=kinds)
        with LoopbackCloud(cloud) as served, faulty_proxy(served.endpoint, choose, late=LATE) as proxy:
            report = restart(backend, proxy, cloud, reboot_type=reboot_type)
        assert set(proxy.sends) == set(kinds)
        assert_each_completed_once(report, cloud)
