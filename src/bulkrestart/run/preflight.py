"""One look before the first send: is this the project's compute API, and does it know us?"""

import logging
import random
from typing import Final

import anyio

from bulkrestart.cloud.compute import Compute
from bulkrestart.core.decide import unauthorized, wrong_endpoint
from bulkrestart.core.errors import AuthError, EndpointError
from bulkrestart.core.model import Server
from bulkrestart.core.observation import Answer
from bulkrestart.run.gate import Gate

_log = logging.getLogger(__name__)

#: Looks at a cloud that does not answer, and the ceiling of the random wait after the first, in seconds, doubled at
#: each more: some 15 s in all, after which a person would look at the URL.
TRIES: Final = 5
_FIRST_CEILING: Final = 2.0


async def preflight(compute: Compute, gate: Gate, server_id: str, rng: random.Random) -> None:
    """Look at one server; whatever the cloud says of it tells what it thinks of us. It also shows the cloud's clock.

    Raises:
        AuthError: The token is refused.
        EndpointError: Nothing answers, or something else than the compute API of the project.
    """
    refused_tokens = tries = 0
    while True:
        seen, _ = await gate.ask(lambda: compute.show(server_id))
        if isinstance(seen, Server):
            return
        if isinstance(seen, Answer):
            if seen.is_throttled:
                continue
            if seen.status == 406 and compute.lower_microversion(seen):
                continue
            if seen.status == 401:
                if refused_tokens:
                    raise AuthError(f"{unauthorized(seen).detail}; nothing was sent")
                refused_tokens += 1
                continue
            if seen.is_wrong_endpoint or seen.status < 400:
                raise EndpointError(f"{wrong_endpoint(seen).detail}; nothing was sent")
            if seen.status < 500:
                if seen.status == 403:
                    _log.warning("servers may not be looked at (%s): what is lost cannot be found again", seen.words)
                return
        tries += 1
        if tries == TRIES:
            raise EndpointError(f"the compute API does not answer ({seen}); check the URL; nothing was sent")
        await anyio.sleep(rng.uniform(0.0, _FIRST_CEILING * 2.0 ** (tries - 1)))
