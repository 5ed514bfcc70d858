"""Join TOC and tar-split into the steps that rebuild a tar of its chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import unpack
from typing import NamedTuple

from zchunked.errors import FormatError
from zchunked.formats.tables.toc import Toc
from zchunked.formats.tars.tarsplit import FILE, SEGMENT, Line

_CRC_BYTES = 8


Step = bytes | int
"""One step of the tar: bytes stand for themselves, a number for the payload of that TOC entry."""


class Steps(NamedTuple):
    """Some of them, in order. `crcs`: what the tar-split says of the payloads among them."""

    steps: list[Step]
    crcs: tuple[int, ...]


def from_tarsplit(toc: Toc, batches: Iterable[list[Line]]) -> Iterator[Steps]:
    """The steps of the tar, in batches. Lazy: raises FormatError where TOC and tar-split disagree.

    The n-th file line is the n-th entry in all known writers; names that say otherwise are joined
    by name.
    """
    join = _Join(toc)
    for lines in batches:
        yield join.steps(lines)
    join.finish()


class _Join:
    """Matches file lines with TOC entries, each exactly once."""

    def __init__(self, toc: Toc) -> None:
        self._toc = toc
        self._next = 0
        self._by_name: dict[str, int] | None = None  # only once the order turned out to differ
        self._used: set[int] = set()

    def steps(self, lines: list[Line]) -> Steps:
        files = [line for line in lines if line.type == FILE]
        if odd := {line.type for line in lines} - {FILE, SEGMENT}:
            raise FormatError(f"the tar-split has a line of type {min(odd)}")
        entries = self._next_ones(files) or [self._entry(line) for line in files]
        each = iter(entries)
        steps = [line.payload if line.type == SEGMENT else next(each) for line in lines]
        sums = b"".join(
            [
                line.payload or b""
                for line, entry in zip(files, entries, strict=True)
                if entry is not None
            ]
        )
        return Steps(
            [step for step in steps if step or step == 0],
            unpack(f">{len(sums) // _CRC_BYTES}Q", sums),
        )

    def _next_ones(self, files: list[Line]) -> list[int | None]:
        """The entries of the lines, None for empty files; [] unless these come next in order."""
        start, end = self._next, self._next + len(files)
        sizes = self._toc.sizes[start:end]
        if (
            self._by_name is not None
            or [line.name for line in files] != self._toc.names[start:end]
            or [line.size for line in files] != sizes.tolist()
            or not {len(line.payload or b"") for line in files if line.size} <= {_CRC_BYTES}
        ):
            return []
        self._next = end
        return [entry if size else None for entry, size in enumerate(sizes, start)]

    def _entry(self, line: Line) -> int | None:
        """The entry of one line; None of an empty one."""
        names, at = self._toc.names, self._next
        # A name that is not UTF-8 is not in the TOC as it is; its place tells, and the diff ID
        # decides.
        if (
            self._by_name is None
            and at < len(names)
            and (line.name_raw is not None or names[at] == (line.name or ""))
        ):  # fmt: skip
            self._next += 1
        else:
            at = self._find(line)
        size = self._toc.sizes[at]
        if line.size != size or not size or line.payload is None or len(line.payload) != _CRC_BYTES:
            self._check_line(line, size)
        return at if size else None

    def _check_line(self, line: Line, size: int) -> None:
        """Raise unless it is an empty file, or no file at all."""
        if not size:
            # A link's header may state a size although no data follows: its checksum is that of
            # nothing.
            if line.size and line.payload and line.payload != bytes(_CRC_BYTES):
                raise FormatError(
                    f"{line.name!r:.80} has {line.size} bytes in the tar-split and none in the TOC"
                )
        elif line.size != size:
            raise FormatError(
                f"{line.name!r:.80} has {line.size} bytes in the tar-split and {size} in the TOC"
            )
        else:
            raise FormatError(
                f"{line.name!r:.80} has no checksum of {_CRC_BYTES} bytes in the tar-split"
            )

    def _find(self, line: Line) -> int:
        """The entry of a line that is not the next one's."""
        names = self._toc.names
        if self._by_name is None:
            self._by_name = {name: entry for entry, name in enumerate(names)}
            self._used = set(range(self._next))
        found = self._by_name.get(line.name or "")
        if found is None or line.name_raw is not None:
            raise FormatError(f"the tar-split names {line.name!r:.80}, which the TOC does not list")
        if found in self._used:
            raise FormatError(f"the tar-split names {line.name!r:.80} twice")
        self._used.add(found)
        return found

    def finish(self) -> None:
        listed = len(self._toc.names)
        named = self._next if self._by_name is None else len(self._used)
        if listed != named:
            raise FormatError(
                f"the TOC lists {listed} entries, the tar-split names {named} of them"
            )
