"""One look before the first send: is this the project's compute API, and does it know us?"""

import logging
import random
from typing import Final

import anyio

from bulkrestart.cloud.compute import Compute
from bulkrestart.core.decide import decide_first_look
from bulkrestart.core.decision import Again, Ready
from bulkrestart.core.errors import EndpointError
from bulkrestart.core.observation import Answer
from bulkrestart.run.gate import Gate

_log = logging.getLogger(__name__)

#: Looks at a cloud that does not answer, and the ceiling of the random wait after the first, in seconds, doubled at
#: each more: some 15 s besides what the looks take, which is `request_timeout` where nothing refuses them.
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
        if isinstance(seen, Answer) and compute.lower_microversion(seen):
            continue
        match decide_first_look(seen, refused_tokens):
            case Ready(warning):
                if warning:
                    _log.warning("%s; the fate of a lost reply cannot be learnt", warning)
                return
            case Again(is_try=False):
                # The gate makes the next look wait.
                refused_tokens += isinstance(seen, Answer) and seen.is_refused_token
            case Again():
                tries += 1
                if tries == TRIES:
                    raise EndpointError(f"the compute API does not answer ({seen}); check the URL; nothing was sent")
                _log.warning("the compute API does not answer (%s); look %d of %d follows", seen, tries + 1, TRIES)
                await anyio.sleep(rng.uniform(0.0, _FIRST_CEILING * 2.0 ** (tries - 1)))
