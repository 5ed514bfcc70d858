"""Find the damaged bytes of a blob with a wrong digest: by its TOC, and by frames' checksums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from zchunked.errors import FormatError, IntegrityError
from zchunked.formats.frames.decompress import unpacked
from zchunked.formats.frames.frame_check import damaged
from zchunked.formats.frames.frame_map import HEADER, PAYLOAD, FrameMap
from zchunked.layers.metadata import LayerIndex, check_tarsplit, read_toc
from zchunked.layers.stand_ins import StandIns
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange, Spans, merge, subtract
from zchunked.store import Store

_PORTION = 4 << 20
_MAGIC, _CHECKSUM_BIT = b"\x28\xb5\x2f\xfd", 4
_SINGLE_SEGMENT_BIT, _LEAST_FRAME = 32, 6
_GZIP = b"\x1f\x8b"
_RARE, _RARE_SHARE = 2, 100  # frames of one form, or one in so many, are few


@dataclass(slots=True)
class Corruption:
    """Spans of the blob, ascending. `damaged`: not what they were when written, wherever they lie.

    `unsure`: no digest and no checksum speaks for it, or the frame's header, of which neither does,
    is a rare one. `lying`: frames that stood in, are sound, and hold other content than the TOC
    says; by where they start.
    """

    damaged: list[ByteRange] = field(default_factory=list)
    unsure: list[ByteRange] = field(default_factory=list)
    lying: list[int] = field(default_factory=list)


def find_corruption(
    store: Store,
    index: LayerIndex,
    frames: FrameMap,
    stand_ins: StandIns,
    limits: Limits = DEFAULT_LIMITS,
) -> Corruption:
    """Look at all of the blob, and at the frames that stand in. Decodes and hashes everything once.

    A payload frame that is sound by its own checksum was not damaged on its way: then the TOC lies
    about it.
    """
    found = Corruption()
    blob = index.layer.digest
    own = Spans(store.covered(blob))
    source = {start: number for number, start in enumerate(stand_ins.starts)}
    bad: list[int] = []
    forms: dict[bytes, list[int]] = {}
    for numbers, data in _portions(store, blob, frames, stand_ins, source, own, bad):
        payloads = [at for at, number in enumerate(numbers) if frames.kinds[number] == PAYLOAD]
        wrong = set(
            damaged(
                index.toc,
                frames,
                [numbers[at] for at in payloads],
                [data[at] for at in payloads],
                limits,
            )
        )
        for number, one in zip(numbers, data, strict=True):
            kind = frames.kinds[number]
            if kind in (PAYLOAD, HEADER) and frames.edges[number] not in source:
                forms.setdefault(_form(one), []).append(number)
            if kind not in (PAYLOAD, HEADER) or (kind == PAYLOAD and number not in wrong):
                continue
            soundness = _soundness(one, limits)
            if soundness is False or (soundness is None and kind == PAYLOAD):
                bad.append(number)
            elif soundness is None:
                found.unsure.append(_span(frames, number))
            elif kind == PAYLOAD and frames.edges[number] in source and not frames.is_joined:
                found.lying.append(frames.edges[number])
    found.damaged = merge([*[_span(frames, number) for number in bad], *_wrong_tail(store, index)])
    tail = [ByteRange(index.payload_end, index.layer.size)]
    most = max(_RARE, len(frames) // _RARE_SHARE)
    rare = [
        number for its in forms.values() if len(its) <= most < len(frames) // 2 for number in its
    ]
    found.unsure = merge(
        [
            *found.unsure,
            *(_span(frames, number) for number in rare),
            *subtract(tail, merge(index.vouched)),
        ]
    )
    return found


def evict_corruption(
    store: Store, blob: Digest, stand_ins: StandIns, wrong: Sequence[ByteRange]
) -> None:
    """Forget these spans of the blob, and where frames of other blobs stood in for them, those."""
    own = Spans(wrong)
    for start, end, source, place in zip(
        stand_ins.starts, stand_ins.ends, stand_ins.blobs, stand_ins.places, strict=True
    ):
        if source != blob and own.hold(start, end):
            store.evict(source, [ByteRange(place, place + end - start)])
    store.evict(blob, wrong)


def _span(frames: FrameMap, number: int) -> ByteRange:
    return ByteRange(frames.edges[number], frames.edges[number + 1])


def _portions(
    store: Store,
    blob: Digest,
    frames: FrameMap,
    stand_ins: StandIns,
    source: dict[int, int],
    own: Spans,
    lost: list[int],
) -> Iterator[tuple[list[int], list[bytes]]]:
    """Stored frames with their bytes, a few MiB at a time. What cannot be read goes to `lost`."""
    numbers: list[int] = []
    data: list[bytes] = []
    held = 0
    for number in range(len(frames)):
        start, end = _span(frames, number)
        try:
            if own.hold(start, end):
                one = store.read(blob, start, end)
            elif start in source:
                at = stand_ins.places[source[start]]
                one = store.read(stand_ins.blobs[source[start]], at, at + end - start)
            else:
                lost.append(number)
                continue
        except IntegrityError:
            lost.append(number)
            continue
        numbers.append(number)
        data.append(one)
        held += len(one)
        if held > _PORTION:
            yield numbers, data
            numbers, data, held = [], [], 0
    yield numbers, data


def _soundness(frame: bytes, limits: Limits) -> bool | None:
    """Whether it is as it was written, by its own checksum; None if it carries none."""
    if frame[:2] != _GZIP and frame[:4] != _MAGIC:
        return False
    try:
        for _ in unpacked([frame], limits):
            pass
    except FormatError:
        return False
    return True if frame[:2] == _GZIP or frame[4] & _CHECKSUM_BIT else None


def _form(frame: bytes) -> bytes:
    """What a frame's header says of its own form: writers use few of them."""
    if frame[:4] != _MAGIC or len(frame) < _LEAST_FRAME:
        return frame[:4]
    return frame[4:5] if frame[4] & _SINGLE_SEGMENT_BIT else frame[4:6]


def _wrong_tail(store: Store, index: LayerIndex) -> list[ByteRange]:
    """TOC and tar-split, if they are not what their digests say."""
    wrong = []
    try:
        read_toc(store, index.layer, index.location)
    except (IntegrityError, FormatError):
        wrong.append(index.location.toc.span)
    if index.tarsplit is not None:
        try:
            check_tarsplit(store, index)
        except IntegrityError:
            wrong.append(index.tarsplit.span)
    return wrong
