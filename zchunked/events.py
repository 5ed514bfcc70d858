"""Events: immutable facts about a pull in progress; the renderer decides how they look.

A client calls `on_event` with each of them, on the thread that called the client.

    >>> import zchunked
    >>> seen = []
    >>> client = zchunked.Client("store", on_event=seen.append)
    >>> digest = client.pull("oci:demo:demo-v1").manifest_digest
    >>> seen[-1] == zchunked.events.Pulled(digest)
    True
"""

from __future__ import annotations

from dataclasses import dataclass

from zchunked.oci.quoting import safe_line


@dataclass(frozen=True, slots=True)
class Planned:
    """What is known to be needed; sent again when the plan changes.

    All in compressed bytes; here + need = total.
    """

    total_bytes: int
    here_bytes: int
    need_bytes: int


@dataclass(frozen=True, slots=True)
class Arrived:
    """New bytes of the plan reached the store."""

    bytes: int


@dataclass(frozen=True, slots=True)
class Retried:
    """A failure that was forgiven. Karma in points (a byte is one), the wait in seconds."""

    cause: str
    karma_before: float
    karma_after: float
    wait: float
    attempt: int


@dataclass(frozen=True, slots=True)
class GaveUp:
    """A failure that was not forgiven. `reason` says why not, in words."""

    cause: str
    karma_before: float
    karma_after: float
    reason: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Noted:
    """Something a person may want to know: a layer that comes whole, a host without ranges."""

    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", safe_line(self.text))


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that is not as the person asked. It is on the receipt too."""

    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", safe_line(self.text))


@dataclass(frozen=True, slots=True)
class Requested:
    """A request was answered.

    `url` holds no credential and no signature; `seconds` until its answer began. `status` is 0
    where nothing more is known than that it failed. `ranges` as they were asked for, perhaps none.
    """

    method: str
    url: str
    status: int
    seconds: float
    ranges: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", safe_line(self.url))


@dataclass(frozen=True, slots=True)
class Pulled:
    """All of the image is in the store and proved; exports follow."""

    manifest_digest: str


@dataclass(frozen=True, slots=True)
class Converting:
    """Layers are written anew; in compressed bytes of what they were."""

    total_bytes: int


@dataclass(frozen=True, slots=True)
class Converted:
    """So many of those bytes are through."""

    bytes: int


Event = (
    Planned
    | Arrived
    | Retried
    | GaveUp
    | Noted
    | Warned
    | Requested
    | Pulled
    | Converting
    | Converted
)
