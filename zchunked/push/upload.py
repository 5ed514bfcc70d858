"""Upload one blob in chunks or in one piece, resumed where the registry says after a fault."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from zchunked.download.retries.retry import Chameleon, Stopped
from zchunked.errors import TransferError, TransientError
from zchunked.events import Arrived
from zchunked.export.shipment import Parcel
from zchunked.oci.digest import Digest, short
from zchunked.sources.http.connections.sessions import SENT_AT_ONCE
from zchunked.sources.registry_upload import (
    ChunksRefusedError,
    OffsetError,
    RegistryUploads,
    TooLargeError,
    Upload,
    UploadLostError,
)

_SMALL_BYTES = 1 << 20  # a blob up to here goes in one piece: one request less, and little to lose
_FIRST_CHUNK, _LONGEST_CHUNK, _SHORTEST_CHUNK = 512 << 10, 128 << 20, 64 << 10
# A chunk is at most this part of what arrived since the last fault: with a fault, half of one
# is lost. So 1 GB takes 50 requests where nothing breaks, and where all 5 MB something does, 1.02
# times the blob is sent.
_FIRST_SHARE, _SHARE_AFTER_FAULT = 8, 64
_MOST_BEGINNINGS = 20  # of one blob without a byte more than before
_MOST_ENDINGS = 3  # of one blob that the registry does not take, though it has every byte


class UploadMemory(Protocol):
    """What outlives a process. `None`: nothing is under way."""

    def recall_upload(self, target: str, blob: Digest) -> str | None: ...

    def remember_upload(self, target: str, blob: Digest, location: str | None) -> None: ...


@dataclass(slots=True)
class Pushed:
    """Progress of a push: blobs, and bytes; `sent` counts what was handed over each time."""

    blobs: int = 0
    sent: int = 0
    sent_twice: int = 0
    skipped: int = 0
    skipped_bytes: int = 0
    mounted: int = 0
    resumed_bytes: int = 0


class ChunkSizes:
    """How long chunks may be: long on good links, short where links break. Thread-safe.

    For all uploads of a push; thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._size, self._most = _FIRST_CHUNK, _LONGEST_CHUNK
        self._share = _FIRST_SHARE
        self._since_fault = 0
        self.takes_chunks = True
        """Until the registry has refused one."""

    def next(self, left: int, least: int) -> int:
        with self._lock:
            return min(left, max(self._size, least))

    def arrived(self, size: int) -> None:
        """So many bytes are there for good."""
        with self._lock:
            self._since_fault += size
            self._size = min(max(self._size, self._since_fault // self._share), self._most)

    def broke(self, lost: int) -> None:
        """A chunk broke; of it, `lost` sent bytes did not arrive: some registries keep none."""
        with self._lock:
            self._share = _SHARE_AFTER_FAULT
            if lost > self._since_fault // self._share:
                self._size = max(_SHORTEST_CHUNK, min(self._size, self._since_fault // self._share))
            self._since_fault = 0

    def too_large(self, size: int) -> bool:
        """Whether there is a shorter one to try."""
        with self._lock:
            self._size = self._most = max(_SHORTEST_CHUNK, min(self._size, size // 2))
            return size > _SHORTEST_CHUNK


class BlobUpload:
    """Uploads one blob: call `resume` until it returns, retrying what it raises."""

    def __init__(
        self,
        parcel: Parcel,
        registry: RegistryUploads,
        memory: UploadMemory,
        sizes: ChunkSizes,
        chameleon: Chameleon,
    ) -> None:
        self._blob, self._pieces = parcel.blob, parcel.pieces
        self._registry, self._memory = registry, memory
        self._sizes, self._chameleon = sizes, chameleon
        self._upload: Upload | None = None
        self._is_doubtful = False  # something broke, so the registry must say how much it has
        self._handed = 0  # the furthest offset up to which this process has sent
        self._broke_at = 0  # how far had been sent when a chunk broke off
        self._confirmed = 0  # the furthest offset that the registry has stated
        self._beginnings = self._beginnings_in_vain = self._endings = 0
        self._has_to_be_whole = False
        self._refusals = 0  # of chunks, since the last one that was taken
        self.new_bytes = 0
        """New bytes there since `resume` was called."""
        self.sent = self.resumed = 0
        self.is_mounted = False

    @property
    def sent_twice(self) -> int:
        """Sent bytes that were of no use."""
        return max(0, self.sent - (self._confirmed - self.resumed))

    def resume(self, mount_from: tuple[str, ...] = ()) -> None:
        """Raises TransientError, which another call may mend, or what cannot be mended."""
        self.new_bytes = 0
        try:
            if not self._is_open(mount_from):
                return
            size = self._blob.size
            upload = self._upload
            if upload is not None and self._is_whole_better() and not upload.offset:
                self._put(upload)
            elif upload is not None:
                while upload.offset < size:
                    upload = self._upload = self._send(upload)
                last = upload
                self._end(lambda: self._registry.finish(last, self._blob.digest))
        except (ChunksRefusedError, OffsetError) as error:
            self._refused(error)
            raise TransientError(str(error)) from error
        except UploadLostError:
            self._drop()
            raise
        except TransientError:
            self._is_doubtful = True
            raise
        self._memory.remember_upload(self._registry.name, self._blob.digest, None)

    def _refused(self, error: TransferError) -> None:
        """A chunk was refused: go on as the registry says, or start anew, or send one piece."""
        if self._has_to_be_whole:
            raise error
        if self._confirmed:
            self._is_doubtful = True
            if self._refusals:
                self._drop()
        elif isinstance(error, ChunksRefusedError) or self._refusals:
            self._has_to_be_whole = True
            self._sizes.takes_chunks &= not isinstance(error, ChunksRefusedError)
            self._drop()
        else:
            self._is_doubtful = True
        self._refusals += 1

    def _is_whole_better(self) -> bool:
        return (
            self._blob.size <= _SMALL_BYTES or self._has_to_be_whole or not self._sizes.takes_chunks
        )

    def _drop(self) -> None:
        self._upload = None
        self._memory.remember_upload(self._registry.name, self._blob.digest, None)

    # ── sessions ──

    def _is_open(self, mount_from: tuple[str, ...]) -> bool:
        """Have an upload whose offset is known; False where the blob is there already."""
        if self._upload is None and not self._beginnings:
            location = self._memory.recall_upload(self._registry.name, self._blob.digest)
            if location is not None:
                self._upload, self._is_doubtful = Upload(location), True
                self._handed = self._blob.size
        if self._upload is not None and self._is_doubtful:
            self._look()
        return self._upload is not None or self._begin(mount_from)

    def _look(self) -> None:
        """Ask how far the upload got. One that claims what it cannot have is not gone on with."""
        assert self._upload is not None
        try:
            found = self._registry.resumed(self._upload)
        except UploadLostError:
            self._drop()
            return
        if found.offset > min(self._handed, self._blob.size):
            self._drop()
            return
        if self._broke_at:
            self._sizes.broke(self._broke_at - found.offset)
            self._broke_at = 0
        if not self._beginnings:
            self.resumed = self._confirmed = found.offset
        self._note(found)
        self._is_doubtful = False

    def _begin(self, mount_from: tuple[str, ...]) -> bool:
        digest = self._blob.digest
        # The last answer was lost, and said that
        if self._beginnings and self._registry.has(self._blob):
            return False
        self._beginnings += 1
        self._beginnings_in_vain += 1
        if self._beginnings_in_vain > _MOST_BEGINNINGS:
            raise TransferError(
                f"{self._registry.name}: {self._beginnings - 1} uploads of {digest} came to "
                "nothing; the registry loses them"
            )
        self._is_doubtful, self._handed = False, 0
        for source in mount_from if self._beginnings == 1 else ():
            self._upload = self._registry.begin(digest, source)
            if self._upload is None:
                self.is_mounted = True
                return False
            if source != mount_from[-1]:
                continue  # an unused session is purged
        if self._upload is None:
            self._upload = self._registry.begin()
        assert self._upload is not None
        if not self._is_whole_better():
            self._memory.remember_upload(self._registry.name, digest, self._upload.location)
        return True

    def _note(self, upload: Upload) -> None:
        """The registry has that much."""
        new = max(0, upload.offset - self._confirmed)
        self._confirmed += new
        if new:
            self.new_bytes += new
            self._beginnings_in_vain = self._refusals = 0
            self._chameleon.gain(new)
            self._chameleon.emit(Arrived(new))
            self._sizes.arrived(new)
        if self._upload is not None and upload.location != self._upload.location:
            self._memory.remember_upload(self._registry.name, self._blob.digest, upload.location)
        self._upload = upload

    def _end(self, call: Callable[[], None]) -> None:
        """The last request of an upload. If the blob is absent then, bytes were wrong or lost."""
        try:
            call()
        except UploadLostError as error:
            # The disk may be to blame: only bytes that are read from the beginning are verified
            if not self._endings:
                for _ in self._pieces(0):
                    pass
            self._endings += 1
            if self._endings >= _MOST_ENDINGS:
                raise TransferError(
                    f"{error}; sent {self._endings} times, each time in vain"
                ) from error
            raise

    # ── bytes ──

    def _send(self, upload: Upload) -> Upload:
        start = upload.offset
        size = self._sizes.next(self._blob.size - start, upload.min_chunk)
        body, go = self._registry.send(upload, size, lambda: self._watched(start, size))
        try:
            after = go()
        except TooLargeError as error:
            if not self._sizes.too_large(size):
                raise TransferError(str(error)) from error
            self._is_doubtful = True
            raise
        except UploadLostError:
            raise
        except TransientError:
            self._broke_at = start + body.sent
            raise
        finally:
            self.sent += body.sent
            # Of what was being sent when it broke, a part may be there.
            self._handed = max(self._handed, start + min(body.sent + SENT_AT_ONCE, size))
        if not start < after.offset <= start + size:
            self._is_doubtful = True
            raise TransientError(
                f"{self._registry.name}: sent bytes {start} to {start + size} of "
                f"{short(self._blob.digest)}, and the registry says that it has {after.offset}"
            )
        self._note(after)
        return after

    def _put(self, upload: Upload) -> None:
        self._upload = None  # whatever happens, it is not gone on with
        size = self._blob.size
        body, go = self._registry.put(upload, self._blob, lambda: self._watched(0, size))
        try:
            self._end(go)
        except TooLargeError as error:
            raise TransferError(str(error)) from error
        finally:
            self.sent += body.sent
        self.new_bytes += size - self._confirmed
        self._chameleon.gain(size - self._confirmed)
        self._chameleon.emit(Arrived(size - self._confirmed))
        self._confirmed = size

    def _watched(self, start: int, size: int) -> Iterator[bytes | memoryview]:
        """So many bytes of the blob from there; ended by a stop."""
        left = size
        for piece in self._pieces(start):
            if self._chameleon.is_stopped:
                raise Stopped
            step = memoryview(piece)[:left]
            left -= len(step)
            yield step
            if not left:
                return
