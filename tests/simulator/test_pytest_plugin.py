"""The fixture, in a pytest run of its own."""

import pytest

pytest_plugins = ["pytester"]

TEST_FILE = """
import httpx

from bulkrestart.simulator import Cloud, Fault

pytest_plugins = ["bulkrestart.simulator.pytest_plugin"]
kept = []


def test_default(simulated_cloud):
    served = simulated_cloud()
    answer = httpx.get(served.endpoint + "/servers", headers={"x-auth-token": served.cloud.token})
    assert len(answer.json()["servers"]) == 100


def test_two_clouds(simulated_cloud):
    kept.extend(simulated_cloud(Cloud(servers)) for servers in (1, 2))
    assert kept[0].url != kept[1].url


def test_they_have_ended():
    assert [served.url for served in kept] == ["", ""]
"""


def test_fixture(pytester: pytest.Pytester) -> None:
    """The fixture serves as many clouds as it is called for, each until the end of its test."""
    pytester.makepyfile(TEST_FILE)
    pytester.runpytest_inprocess("-p", "no:asyncio", "-p", "no:cacheprovider", "-W", "error").assert_outcomes(passed=3)
