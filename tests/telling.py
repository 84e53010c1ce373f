"""A program that restarts servers, and then tells all it can: logs, reports, reprs, and tracebacks with their locals.

`tests/test_secrets.py` runs it with a scenario in JSON as its one argument.
"""

import gc
import json
import logging
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import anyio

import bulkrestart
from bulkrestart import AccessKey, RestartClient, Token

#: Seconds that are waited where something does not go well.
WAITS = {
    "cloud.auth._FIRST_PATIENCE": 0.0,
    "cloud.auth._PATIENCE": 0.0,
    "core.decide.REFUSED_TOKEN_DELAY": 0.01,
    "limits.pacing.FIRST_PAUSE": 0.01,
    "run.preflight._FIRST_CEILING": 0.01,
}
_OURS = str(Path(bulkrestart.__file__).parent)


_log = logging.getLogger("program")


def tell(*words: object) -> None:
    """Put it into the log."""
    _log.debug(" ".join(map(str, words)))


def make_client(scenario: dict[str, Any]) -> RestartClient:
    """Make the client of a scenario; secrets come by the environment."""
    endpoint = scenario["endpoint"]
    match scenario["by"]:
        case "token":
            return RestartClient(endpoint, auth=Token(os.environ["OS_TOKEN"]))
        case "function":
            return RestartClient(endpoint, auth=Token(lambda: os.environ["OS_TOKEN"]))
        case "keys":
            names = ("HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK")
            security_token = os.environ["HUAWEICLOUD_SDK_SECURITY_TOKEN"]
            access_key, secret_key = (os.environ[name] for name in names)
            return RestartClient(endpoint, auth=AccessKey(access_key, secret_key, security_token=security_token))
        case _:
            return RestartClient.from_cloud(scenario["cloud"])


def prepare(defect: str) -> None:
    """Wait for nobody who refuses us or does not answer, and let a defect be raised in the middle, if one is named."""
    for place, seconds in WAITS.items():
        _replace(f"bulkrestart.{place}", seconds)
    if defect:
        _replace(f"bulkrestart.{defect}", _fail)


def _replace(place: str, value: object) -> None:
    module, _, name = place.rpartition(".")
    setattr(import_module(module), name, value)


def _fail(*_: object, **__: object) -> NoReturn:
    raise TypeError("a defect")


async def main(scenario: dict[str, Any]) -> None:
    """Restart the servers of a scenario, and tell all."""
    held: list[object] = []
    try:
        client = make_client(scenario)
        held += [client, scenario]
        async with client:
            tell((await client.locate()).endpoint)
            async with client.restarting(scenario["ids"], wait=False, journal=scenario["journal"]) as run:
                held.append(run)
                async for result in run:
                    tell(result)
        tell(run.report, repr(run.report), json.dumps(run.report.to_dict()))
    except BaseException as error:
        tell_error(error, set())
        _log.debug("it failed", exc_info=True)
    gc.collect()
    for one in gc.get_objects():
        if str(type(one).__module__).startswith("bulkrestart"):
            tell(repr(one), one)


def tell_error(error: BaseException, told: set[int]) -> None:
    """Print an error and all that led to it, with the locals of our own frames, as error trackers do."""
    told.add(id(error))
    tell(*traceback.format_exception_only(error), error.args)
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename.startswith(_OURS):
            tell(frame.f_code.co_qualname, {name: repr(value) for name, value in frame.f_locals.items()})
    group = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    for other in (error.__cause__, error.__context__, *group):
        if other is not None and id(other) not in told:
            tell_error(other, told)


if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
    given = json.loads(sys.argv[1])
    prepare(given["defect"])
    anyio.run(main, given)
