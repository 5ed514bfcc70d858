"""Journals of byte files: which bytes of a blob a running or killed process has written.

How they are kept, and why they count within one boot only, stands in `writer.py`.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from zchunked.errors import FormatError
from zchunked.local.paths import is_file, is_missing, is_there
from zchunked.oci.digest import Digest, parse_digest
from zchunked.store.extents import ExtentMap
from zchunked.store.files.disk_sync import sync_data, sync_folder
from zchunked.store.processes.owner import boot
from zchunked.store.processes.session import LIVE, gone, is_held, live_sessions

RECORD = struct.Struct("<QQ")
"""An extent: its offset in the blob, its offset in the file."""
_JOURNAL = ".map"

Rows = list[tuple[int, int, str, int]]
"""Extents to record: (start, end, file, at)."""


def boot_id() -> str:
    """Changes with every start of the machine; where the system does not say, no two are equal."""
    return boot() or secrets.token_hex(16)


class _Head(msgspec.Struct):
    """First line of a journal: the blob, its size, and the boot in which the records count."""

    blob: str
    size: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    boot: str


_HEAD = msgspec.json.Decoder(_Head)


def head(blob: Digest, size: int) -> bytes:
    """The first line of a journal that is begun now."""
    return msgspec.json.encode(_Head(blob, size, boot_id())) + b"\n"


@dataclass(frozen=True, slots=True)
class Leftover:
    """What a killed process had received of a blob: bytes on the disk, perhaps without rows."""

    blob: Digest
    size: int
    rows: Rows


def recover(folder: Path) -> Iterator[Leftover]:
    """Read the journals of killed processes; each is removed once the caller took what it says."""
    boot = boot_id()
    for journal in sorted(folder.glob("*" + _JOURNAL)):
        file = journal.name.removesuffix(_JOURNAL)
        live = folder / (file.partition("-")[0] + LIVE)
        if is_held(live):
            continue
        try:
            leftover = _read_journal(journal, folder / file, boot)
        except OSError as error:
            if not is_missing(error):
                continue  # a later process may be able to read it
            leftover = None
        if leftover is not None and _is_on_disk(folder / file):
            yield leftover
        journal.unlink(missing_ok=True)
    for live in folder.glob("*" + LIVE):
        with gone(live) as is_gone:
            if is_gone:
                live.unlink(missing_ok=True)


def journal_of(path: Path) -> Path:
    """The journal of a byte file, which exists until it is closed or recovered."""
    return path.with_name(path.name + _JOURNAL)


def _is_on_disk(path: Path) -> bool:
    """Bring it there. What the disk refuses once is not believed when it is asked again."""
    with path.open("rb") as data:
        try:
            sync_data(data.fileno())
            sync_folder(path.parent)
        except OSError:
            return False
    return True


def idle_files(folder: Path) -> list[Path]:
    """Byte files of ended sessions, journals read; check afterwards whether rows point to them."""
    # first: the rest may start
    files = [path for path in folder.iterdir() if path.suffix not in (LIVE, _JOURNAL)]
    live = {*live_sessions(folder)}
    idle = [path for path in files if path.name.partition("-")[0] not in live]
    return [path for path in idle if is_file(path) and not is_there(journal_of(path))]


def in_flight(folder: Path) -> list[Leftover]:
    """What running processes received and perhaps not committed: a view that may change."""
    boot, found = boot_id(), []
    for journal in folder.glob("*" + _JOURNAL):
        with suppress(OSError):
            if (
                leftover := _read_journal(
                    journal, folder / journal.name.removesuffix(_JOURNAL), boot
                )
            ) is not None:
                found.append(leftover)
    return found


def _read_journal(journal: Path, data: Path, boot: str) -> Leftover | None:
    """What a journal says, None for nothing of use. OSError where it or its file cannot be read."""
    head, _, body = journal.read_bytes().partition(b"\n")
    length = data.stat().st_size
    try:
        written = _HEAD.decode(head)
        blob = parse_digest(written.blob)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, FormatError):
        return None
    records = [
        RECORD.unpack_from(body, at) for at in range(0, len(body) - RECORD.size + 1, RECORD.size)
    ]
    if written.boot != boot or not records:
        return None
    ends = [min(at, length) for _, at in records[1:]] + [length]
    rows = [
        (start, start + end - at, data.name, at)
        for (start, at), end in zip(records, ends, strict=True)
        if at < end and start + end - at <= written.size
    ]
    newest = ExtentMap()  # what arrived twice was wrong the first time
    for row in reversed(rows):
        newest.add(*row)
    return Leftover(blob, written.size, newest.rows()) if rows else None
