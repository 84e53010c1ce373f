"""Which servers pass a filter; how a query is read is told elsewhere."""

import pytest

from bulkrestart.simulator import Cloud
from bulkrestart.simulator.filters import Filter, TagFilter


@pytest.mark.parametrize(
    ("only", "names"),
    [
        (Filter(), ["db-1", "Web-1", "web-10"]),
        (Filter(name="web-1"), ["Web-1", "web-10"]),
        (Filter(name="^WEB-1$"), ["Web-1"]),
        (Filter(name="-1"), ["db-1", "Web-1", "web-10"]),
        (Filter(name="b.1$|10"), ["db-1", "Web-1", "web-10"]),
        (Filter(name="nope"), []),
        (Filter(zone="^az-1$"), ["db-1", "Web-1"]),
        (Filter(zone="az-2", name="web"), ["web-10"]),
        (Filter(zone="az-2", name="db"), []),
        (Filter(statuses=("SHUTOFF",)), ["db-1"]),
        (Filter(statuses=("SHUTOFF",), name="web"), []),
        (Filter(tags={TagFilter.ALL: frozenset({"blue"})}), ["Web-1", "web-10"]),
        (Filter(tags={TagFilter.ALL: frozenset({"Blue"})}), []),
        (Filter(tags={TagFilter.ALL: frozenset({"blue", "canary"})}), ["web-10"]),
        (Filter(tags={TagFilter.ANY: frozenset({"canary", "nope"})}), ["web-10"]),
        (Filter(tags={TagFilter.NOT_ALL: frozenset({"blue", "canary"})}), ["db-1", "Web-1"]),
        (Filter(tags={TagFilter.NOT_ANY: frozenset({"canary", "nope"})}), ["db-1", "Web-1"]),
        (
            Filter(tags={TagFilter.ALL: frozenset({"blue"}), TagFilter.NOT_ANY: frozenset({"canary"})}),
            ["Web-1"],
        ),
    ],
)
def test_filter(only: Filter, names: list[str]) -> None:
    """A server passes if everything lets it through: patterns in any case, tags as they are written."""
    cloud = Cloud(0)
    cloud.add(name="db-1", availability_zone="az-1", vm_state="stopped")
    cloud.add(name="Web-1", availability_zone="az-1", tags=("blue",))
    cloud.add(name="web-10", availability_zone="az-2", tags=("blue", "canary"))
    cloud.delete(cloud.add(name="web-10", availability_zone="az-2", tags=("blue", "canary")).id)
    page = cloud.page(cloud.project_id, limit=10, only=only)
    assert sorted((server.name for server in page), key=str.lower) == names
