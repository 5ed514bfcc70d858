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

from msgspec import Struct
from msgspec.structs import force_setattr

from zchunked.oci.quoting import safe_line


class Planned(Struct, frozen=True):
    """What is known to be needed; sent again when the plan changes.

    All in compressed bytes; here + need = total.
    """

    total_bytes: int
    here_bytes: int
    need_bytes: int


class Arrived(Struct, frozen=True):
    """New bytes of the plan reached the store."""

    bytes: int


class Retried(Struct, frozen=True):
    """A failure that was forgiven. Karma in points (a byte is one), the wait in seconds."""

    cause: str
    karma_before: float
    karma_after: float
    wait: float
    attempt: int


class GaveUp(Struct, frozen=True):
    """A failure that was not forgiven. `reason` says why not, in words."""

    cause: str
    karma_before: float
    karma_after: float
    reason: str
    attempt: int


class Noted(Struct, frozen=True):
    """Something a person may want to know: a layer that comes whole, a host without ranges."""

    text: str

    def __post_init__(self) -> None:
        force_setattr(self, "text", safe_line(self.text))


class Warned(Struct, frozen=True):
    """Something that is not as the person asked. It is on the receipt too."""

    text: str

    def __post_init__(self) -> None:
        force_setattr(self, "text", safe_line(self.text))


class Requested(Struct, frozen=True):
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
        force_setattr(self, "url", safe_line(self.url))


class Pulled(Struct, frozen=True):
    """All of the image is in the store and proved; exports follow."""

    manifest_digest: str


class Converting(Struct, frozen=True):
    """Layers are written anew; in compressed bytes of what they were."""

    total_bytes: int


class Converted(Struct, frozen=True):
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
