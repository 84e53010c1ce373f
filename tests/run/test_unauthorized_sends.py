"""A cloud that refuses every send with 401 and answers looks: servers are `refused`, and three of them stop the run."""

import pytest

from bulkrestart import Outcome, Reason, StopReason
from bulkrestart.limits.rejections import REJECTED_SERVERS
from bulkrestart.simulator import Fault
from tests.virtual import REGARDLESS, assert_accounted, client_of, cloud_of, virtually

REFUSALS = {
    "of Nova": Fault.error(401),
    "without a body": Fault.respond(401),
    "a page": Fault.respond(401, b"<html><title>401 Unauthorized</title></html>"),
    "of a gateway": Fault.respond(401, b'{"error_code": "APIG.0301", "error_msg": "Incorrect IAM authentication"}'),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("servers", [1, 2, 3, 40])
@pytest.mark.parametrize("reboot_type", ["SOFT", "HARD"])
def test_sends_that_are_always_refused(refusal: Fault, servers: int, reboot_type: str) -> None:
    """Nothing was started, so no server is in doubt, and none is called busy."""

    async def main() -> None:
        cloud = cloud_of(servers)
        for server_id in cloud.ids:
            cloud.script(server_id, *[refusal] * 99)
        async with client_of(cloud, max_at_once=5) as client:
            report = await client.restart(cloud.ids, reboot_type=reboot_type, rollout=REGARDLESS)
        assert report.summary == {Outcome.REFUSED: servers}
        reasons = {result.reason for result in report.results}
        if servers < REJECTED_SERVERS:
            assert (reasons, report.stopped) == ({Reason.UNAUTHORIZED}, None)
        else:
            assert reasons <= {Reason.UNAUTHORIZED, Reason.STOPPED}
            assert report.stopped is not None
            assert report.stopped.reason is StopReason.UNAUTHORIZED
            assert report.stopped.detail.endswith("; get a new token for this project")
        assert report.elapsed < 120.0
        assert_accounted(report, cloud)

    virtually(main)
