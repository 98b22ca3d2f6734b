"""Who may send images by C-STORE, what is made of them, and where that goes.

A site names senders, destinations and rules in its settings, as it names archives.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from retreg.dicom.objects import KINDS
from retreg.errors import InputError
from retreg.messages import Scalar
from retreg_server.dicom.archives import NAME

_TITLE = re.compile(r"(?! )[\x20-\x5b\x5d-\x7e]{1,16}(?<! )")
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Entry = TypeVar("_Entry")


@dataclass(frozen=True)
class Sender:
    """title: of the calling application entity. network: from where it calls; None: anywhere."""

    name: str
    title: str
    network: _Network | None = None

    @property
    def table(self) -> dict[str, str]:
        """Its entry in the settings."""
        address = {} if self.network is None else {"address": str(self.network)}
        return {"title": self.title, **address}

    def may_call_from(self, address: str) -> bool:
        """Whether it may be at that address."""
        host = ipaddress.ip_address(address)
        host = getattr(host, "ipv4_mapped", None) or host  # as a socket for both versions says it
        return self.network is None or host in self.network


@dataclass(frozen=True)
class Destination:
    """An application entity that results are sent to."""

    name: str
    title: str
    host: str
    port: int


@dataclass(frozen=True)
class Rule:
    """Which two series of a study are registered, and what becomes of the result.

    fixed, moving: patterns of series descriptions, with * and ?, in letters of any size. modality:
    as MR, CT or OP. store: some of retreg.dicom.objects.KINDS.
    """

    name: str
    destination: str
    modality: str
    fixed: str = "*"
    moving: str = "*"
    model: str | None = None
    options: Mapping[str, Scalar] = field(default_factory=dict)
    store: tuple[str, ...] = ("series", "registration")


@dataclass(frozen=True)
class Peers:
    """What a site says of C-STORE, each by its name."""

    senders: Mapping[str, Sender] = field(default_factory=dict)
    destinations: Mapping[str, Destination] = field(default_factory=dict)
    rules: Mapping[str, Rule] = field(default_factory=dict)

    def refuse_incomplete(self) -> None:
        """Raise InputError for what is not enough to receive anything."""
        for name in ("senders", "destinations", "rules"):
            if not getattr(self, name):
                raise InputError(
                    f"Images by C-STORE need {name} in the settings file; add one as [{name}.NAME]."
                )


def peers_from(senders: Any, destinations: Any, rules: Any) -> Peers:
    """The tables [senders.NAME], [destinations.NAME] and [rules.NAME]. Raises InputError."""
    peers = Peers(
        _entries("senders", senders, sender_from),
        _entries("destinations", destinations, _destination),
        _entries("rules", rules, _rule),
    )
    for rule in peers.rules.values():
        if rule.destination not in peers.destinations:
            raise InputError(
                f"The rule {rule.name} sends to {rule.destination!r}, which the settings do not "
                f"know; add it as [destinations.{rule.destination}]."
            )
    return peers


def sender_from(name: str, entry: Mapping[str, Any]) -> Sender:
    """The sender of the table [senders.NAME]. Raises InputError."""
    what = f"sender {name}"
    given = _checked(what, entry, {"title": str, "address": str}, {"title"})
    if "address" not in given:
        return Sender(name, given["title"])
    try:
        network = ipaddress.ip_network(given["address"], strict=False)
    except ValueError:
        raise InputError(
            f"The address {given['address']!r} of the {what} is not usable; give one such as "
            "10.1.2.30, or a range such as 10.1.2.0/24."
        ) from None
    return Sender(name, given["title"], network)


def is_title(text: str) -> bool:
    """Whether it can be the title of an application entity (PS3.5, table 6.2-1: AE)."""
    return _TITLE.fullmatch(text) is not None


def _entries(
    kind: str, table: Any, made: Callable[[str, Mapping[str, Any]], _Entry]
) -> dict[str, _Entry]:
    if not isinstance(table, Mapping) or not all(isinstance(e, Mapping) for e in table.values()):
        raise InputError(f"The setting {kind} is no table; write [{kind}.NAME] above each one.")
    for name in table:
        if not NAME.fullmatch(name):
            raise InputError(
                f"The entry {name!r} of {kind} needs a name of small letters, digits, - and _."
            )
    return {name: made(name, entry) for name, entry in table.items()}


def _checked(
    what: str, entry: Mapping[str, Any], kinds: Mapping[str, type], needed: set[str]
) -> Mapping[str, Any]:
    """The entry, when it has what is needed, and nothing but values of these kinds."""
    for name, value in entry.items():
        if name not in kinds or not isinstance(value, kinds[name]) or isinstance(value, bool):
            known = ", ".join(kinds)
            raise InputError(f"The {what} cannot have {name} = {value!r}; it has {known}.")
    if missing := sorted(needed - set(entry)):
        raise InputError(f"The {what} needs {' and '.join(missing)}; add that to the settings.")
    if "title" in entry and not is_title(entry["title"]):
        raise InputError(
            f"The title {entry['title']!r} of the {what} is not usable; 1 to 16 letters and "
            "digits were expected."
        )
    return entry


def _destination(name: str, entry: Mapping[str, Any]) -> Destination:
    what, kinds = f"destination {name}", {"title": str, "host": str, "port": int}
    given = _checked(what, entry, kinds, set(kinds))
    if not given["host"] or not 0 < given["port"] < 1 << 16:
        raise InputError(f"The {what} needs a host, and a port of 1 to 65535.")
    return Destination(name, given["title"], given["host"], given["port"])


def _rule(name: str, entry: Mapping[str, Any]) -> Rule:
    kinds = {
        "destination": str, "modality": str, "fixed": str, "moving": str, "model": str,
        "options": Mapping, "store": list,
    }  # fmt: skip
    given = _checked(f"rule {name}", entry, kinds, {"destination", "modality"})
    store = tuple(given.get("store", Rule.store))
    if not store or not set(store) <= set(KINDS):
        raise InputError(
            f"The rule {name} stores {', '.join(map(str, store)) or 'nothing'}; some of "
            f"{', '.join(KINDS)} were expected."
        )
    options = dict(given.get("options", {}))
    if not all(isinstance(value, (str, bool, int, float)) for value in options.values()):
        raise InputError(f"The options of the rule {name} are texts, numbers, true or false.")
    return Rule(name, **{**given, "store": store, "options": options})
