"""A process that is killed before a real Nova loses no server and doubles no reboot, by Nova's own logs."""

from pathlib import Path

import pytest

from bulkrestart import RebootType
from tests.kills import Kill, Moment, Program, end_of, is_unresolved, wait_for

from .bed import Nova, Reboot


@pytest.mark.parametrize(("reboot_type", "count"), [(RebootType.SOFT, 12), (RebootType.HARD, 8)])
def test_a_fleet_comes_back(nova: Nova, tmp_path: Path, reboot_type: RebootType, count: int) -> None:
    """Killed with a send on the disk that never left, and again with sends under way, each server is rebooted once."""
    ids = nova.take(count)
    program = Program(
        endpoint=nova.endpoint,
        token=nova.token,
        ids=ids,
        reboot_type=reboot_type,
        folder=tmp_path,
        max_at_once=3,
        # This Nova has no gateway that delivers late, and acts on a request within 2 s.
        grace=15.0,
        poll=2.0,
    )

    # The file is opened, the run is begun, and the third commit is that of the first sends.
    with program.started(Kill(Moment.COMMITTED, 3)) as process:
        assert end_of(process).is_killed
    contents = program.contents()
    assert contents is not None
    assert sum(map(is_unresolved, contents.checkpoints.values())) > 0
    assert sum(map(nova.posts, ids)) == 0

    with program.started() as process:
        wait_for(lambda: sum(map(nova.posts, ids)) >= count // 2, process)
        process.kill()
        assert end_of(process).is_killed

    with program.started() as process:
        end = end_of(process)
    assert (end.code, end.err) == (0, "")
    assert [(server_id, outcome) for server_id, outcome, *_ in end.results] == [(id_, "completed") for id_ in ids]
    for server_id, *_, request_id in end.results:
        assert nova.posts(server_id) == 1
        assert nova.reboots(server_id) == [Reboot(str(request_id), is_error=False, results=("Success",))]
