"""A sign-in that does as it is told, with a simulated cloud that takes what it gives."""

from collections.abc import Callable

import anyio
import httpx

from bulkrestart.cloud.credentials import Issued, Renewed, SignInError, Trouble
from bulkrestart.simulator import Cloud

DOWN = Trouble("Keystone is down", "wait")
WRONG_PASSWORD = Trouble("the password is wrong", "check the password", is_final=True)


class Scripted(Renewed):
    """Issues token after token, each good in the cloud for its life.

    Args:
        cloud: The cloud; None where nothing is sent.
        life: Seconds that a token lives; None: it is not said, and lasts.
        takes: Seconds that a sign-in takes.

    Attributes:
        asked: When each sign-in was asked for.
        trouble: What every sign-in meets while it is set.
        good: Whether the cloud takes what is issued.
        watch: Called whenever a sign-in is asked for.
    """

    def __init__(self, cloud: Cloud | None = None, *, life: float | None = None, takes: float = 0.0) -> None:
        super().__init__()
        self.asked: list[float] = []
        self.trouble: Trouble | None = None
        self.good = True
        self.watch: Callable[[], object] = lambda: None
        self._cloud = cloud
        self._life = life
        self._takes = takes

    @property
    def token(self) -> str:
        """The newest token."""
        return f"token-{len(self.asked)}"

    async def fetch(self) -> Issued:
        """Issue the next token, or fail."""
        self.asked.append(anyio.current_time())
        token = self.token
        self.watch()
        await anyio.sleep(self._takes)
        if self.trouble is not None:
            raise SignInError(self.trouble)
        if self._cloud is not None and self.good:
            self._cloud.add_token(token)
            if self._life is not None:
                self._cloud.later(self._life - self._takes, lambda: self._revoke(token))
        return Issued({"X-Auth-Token": token}, self._life)

    def revoke(self) -> None:
        """Let the cloud refuse the newest token from now on."""
        self._revoke(self.token)

    def _revoke(self, token: str) -> None:
        assert self._cloud is not None
        self._cloud.tokens.pop(token, None)

    def remedy(self, refusal: httpx.Response) -> str:
        """Name what a user would do."""
        return "sign in better"
