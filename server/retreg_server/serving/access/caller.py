"""Who has sent the request that is being answered."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, get_args

from retreg_server.serving.access.addresses import site
from retreg_server.serving.errors import ApiError

logger = logging.getLogger(__name__)

Right = Literal["register", "read", "admin"]
RIGHTS: tuple[Right, ...] = get_args(Right)


@dataclass(frozen=True)
class Caller:
    """A client by the name of its token.

    owner: who has its images and registrations, the same for all that share them; nobody where
    there is one token for all. rights: read its own registrations, register too, or admin: all,
    and those of others. jobs: registrations at the same time. address: where it is.
    """

    name: str = ""
    owner: str = ""
    rights: frozenset[str] = frozenset(RIGHTS)
    jobs: int | None = None
    address: str = ""

    @property
    def line(self) -> str:
        """What lines call it: its name if the token is its own, else the site of its address."""
        return self.name if self.owner else site(self.address)

    def may_see(self, owner: str) -> bool:
        """Whether what has that owner is there for this caller."""
        return owner == self.owner or "admin" in self.rights

    def require(self, right: Right) -> None:
        """Raise ApiError 403 when the token does not give that right."""
        if not self.rights & {right, "admin"}:
            raise ApiError(
                403, "forbidden", f"This token may not {right}; ask the administrator for one."
            )


EVERYBODY = Caller()
_current: ContextVar[Caller] = ContextVar("caller", default=EVERYBODY)


def caller() -> Caller:
    """Who has sent the request that is being answered; everybody outside of one."""
    return _current.get()


def answer_to(client: Caller) -> None:
    """From now on, what runs for this request runs for that client."""
    _current.set(client)


def audit(act: str, **hashes: str) -> None:
    """One line in the log: who has sent, run, fetched or deleted what, by hash only."""
    who = _current.get()
    facts = {"act": act, "client": who.name, "address": who.address, **hashes}
    what = ", ".join(f"{name} {value}" for name, value in hashes.items())
    logger.info("%s at %s: %s %s.", who.name or "somebody", who.address, act, what, extra=facts)
