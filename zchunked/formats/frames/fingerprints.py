"""Fingerprint what lies between two files of a tar, padding and headers, from TOC entries.

Writers are deterministic, so header frames with one fingerprint hold the same bytes in all
likelihood. Not quite for sure: a TOC does not tell user names (containers/storage) or the form of a
header.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256

from zchunked.formats.tables.toc_json import Batch, with_names
from zchunked.oci.digest import RAW_SIZE

_BETWEEN = b'},{"type":"'  # in no string, where quotes are escaped, and behind no inner object
_FRONT, _BACK = len('[{"type":"'), -len("}]")
_PADDING = [number.to_bytes(2, "little") for number in range(512)]
"""By size modulo 512 of the file before. A tar pads it to that boundary."""
_ZONE_END = re.compile(rb':[0-9]{2}"')  # nothing else ends like that, but for a name now and then
_ZONED = re.compile(
    rb'(time":")([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8})(\.[0-9]+)?([+-][0-9]{2}:[0-9]{2})"'
)


class Fingerprints:
    """Takes a TOC's entries in order; one SHA-256 for each file that has a payload.

    It covers the size modulo 512 of the file with a payload before (0: none), then all entries
    since then, this file included. Of these files it takes what their headers say (name, owner,
    mode, size, times, attributes), of the others all that the TOC does. Where a payload lies and
    what is in it is left out, and so are the zone of a time and which entry states a name first.
    """

    def __init__(self) -> None:
        self._waiting: list[bytes] = []  # entries since the last payload
        self._padding = _PADDING[0]
        self._found = bytearray()
        self._users: dict[int, str] = {}
        self._groups: dict[int, str] = {}

    def take(self, batch: Batch) -> None:
        """Take the next entries. Their text is split, not encoded again: 0.5 µs each."""
        has_names = b'"userName":"' in batch.text or b'"groupName":"' in batch.text
        if self._users or self._groups or has_names:
            batch = with_names(batch, self._users, self._groups)
        texts: list[bytes] = []
        waiting, padding = self._waiting, self._padding
        lines = _same_times(batch.text)[_FRONT:_BACK].split(_BETWEEN)
        for entry, line in zip(batch.entries, lines, strict=True):
            if entry.type == "chunk":
                continue
            size = entry.size
            # a link may state a size, but no payload follows it
            if not size or entry.type != "reg":
                waiting.append(line)
                continue
            # Of the fields that a file with a payload has behind its header's, the digest is the
            # first.
            header = line.rpartition(b',"digest":"')[0]
            if waiting:
                header = b"\n".join([*waiting, header])
                waiting.clear()
            texts.append(padding + header)
            padding = _PADDING[size & 511]
        self._padding = padding
        self._found += b"".join([sha256(text).digest() for text in texts])

    def found_from(self, first: int) -> bytes:
        """The fingerprints so far, from that number on, 32 bytes each."""
        return bytes(memoryview(self._found)[first * RAW_SIZE :])

    def finish(self) -> bytes:
        """All fingerprints, 32 bytes each, in the order of the TOC."""
        return bytes(self._found)


def _same_times(text: bytes) -> bytes:
    """Times as instants: writers use the builder's zone. One search tells if there are any.

    A time that is not set stays as it is spelled: writers that differ in that have other encoders,
    too.
    """
    if _ZONE_END.search(text):
        text = _ZONED.sub(
            lambda found: b'%b%b%bZ"' % (found[1], _utc(found[2], found[4]), found[3] or b""), text
        )
    return text


@lru_cache(maxsize=4096)
def _utc(clock: bytes, zone: bytes) -> bytes:
    try:
        return (
            datetime.fromisoformat((clock + zone).decode())
            .astimezone(UTC)
            .isoformat()[:19]
            .encode()
        )
    except (ValueError, OverflowError):  # no such day, or before the year 1
        return clock + zone
