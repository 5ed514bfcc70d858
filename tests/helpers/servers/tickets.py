"""Tokens, and the signed URLs of a CDN; both run out, after some seconds or some uses."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from dataclasses import dataclass


@dataclass
class _Ticket:
    purpose: str
    issued: float
    uses: int = 0


class Tickets:
    """Issues tickets, each good for one purpose; the same texts for the same seed."""

    def __init__(self, seed: int, *, seconds: float | None, uses: int | None) -> None:
        self._lock = threading.Lock()
        self._seed = seed
        self._seconds = seconds
        self._uses = uses
        self._issued: dict[str, _Ticket] = {}

    @property
    def issued(self) -> int:
        return len(self._issued)

    def issue(self, purpose: str) -> str:
        with self._lock:
            text = hashlib.sha256(
                f"{self._seed}/{len(self._issued)}/{purpose}".encode()
            ).hexdigest()
            self._issued[text] = _Ticket(purpose, time.monotonic())
            return text

    def use(self, text: str, purpose: str) -> bool:
        """Whether it is good, this once."""
        with self._lock:
            ticket = self._issued.get(text)
            if ticket is None or ticket.purpose != purpose:
                return False
            ticket.uses += 1
            old = self._seconds is not None and time.monotonic() - ticket.issued >= self._seconds
            return not old and (self._uses is None or ticket.uses <= self._uses)

    def revoke(self) -> None:
        """None of those issued is good any more."""
        with self._lock:
            for ticket in self._issued.values():
                ticket.purpose = "revoked"


def basic(credentials: tuple[str, str]) -> str:
    """The Authorization header of a user and a password."""
    return "Basic " + base64.b64encode(":".join(credentials).encode()).decode()
