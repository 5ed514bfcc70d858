"""Publish to a bucket: objects appear whole; the index is replaced unless another publisher did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from zchunked.errors import (
    AccessDeniedError,
    LimitError,
    NotFoundError,
    TransferError,
    TransientError,
)
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.reference import LayoutReference
from zchunked.sources.network import Network
from zchunked.sources.objects.bucket import Bucket, connect

if TYPE_CHECKING:
    from obstore import PutMode, UpdateVersion

_PART_BYTES = 5 << 20  # the least that S3 takes
_MOST_PARTS = 9000  # S3 takes 10,000
_PARTS_AT_ONCE = 2  # for each blob; several blobs go up at the same time
_PART_RETRIES = 3
_REQUEST_SECONDS = 300  # for a part to go up: 17 kB/s
_TURNS = 20  # each lost turn was won by another publisher
_BLOB_TYPE = {
    "Content-Type": "application/octet-stream",
    "Cache-Control": "public, max-age=31536000, immutable",
}
# otherwise old tags live on in proxies
_JSON_TYPE = {"Content-Type": "application/json", "Cache-Control": "no-cache"}
# who may not list a bucket is refused what is not there
_PERHAPS_ABSENT = (NotFoundError, AccessDeniedError)
# how servers say that they do not know `If-Match` on writes
_NO_CONDITIONS = frozenset({400, 405, 501})


def open_bucket_target(
    reference: LayoutReference, network: Network, *, is_patient: bool = True
) -> BucketTarget:
    """`is_patient` False: a blob's part is sent once. Otherwise obstore retries it three times."""
    # A limit to silence would count the time that a part takes to go up.
    client = {"timeout": f"{_REQUEST_SECONDS}s"}
    return BucketTarget(
        connect(reference, network, client, retries=_PART_RETRIES if is_patient else 0)
    )


class BucketTarget:
    """A bucket as `Target`. With conditional writes, publishers never lose each other's entries."""

    def __init__(self, bucket: Bucket, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self.name = bucket.name
        self._bucket, self._limits = bucket, limits
        self._has_conditions = True

    @contextmanager
    def held(self, report: Callable[[str], None]) -> Iterator[None]:
        """Nothing to hold: a bucket has no locks, `update` looks twice instead."""
        yield

    def size_of(self, path: str) -> int | None:
        import obstore  # noqa: PLC0415 - an extra

        try:
            return int(obstore.head(self._bucket.store, path)["size"])
        except (obstore.exceptions.BaseError, OSError) as error:
            ours = self._bucket.answered(error, f"{self.name}/{path}").error
            if isinstance(ours, _PERHAPS_ABSENT):
                return None
            raise ours from None

    def put(self, path: str, size: int, pieces: Iterable[bytes | memoryview]) -> None:
        """Raises what `pieces` raises; a large object that breaks off leaves no parts behind."""
        if size <= _PART_BYTES:
            self._put(path, b"".join(pieces), _JSON_TYPE if path == "oci-layout" else _BLOB_TYPE)
        else:
            part = max(_PART_BYTES, -(-size // _MOST_PARTS))
            self._put(path, iter(pieces), _BLOB_TYPE, use_multipart=True, chunk_size=part)

    def update(self, path: str, change: Callable[[bytes | None], bytes]) -> None:
        from obstore import exceptions  # noqa: PLC0415 - an extra

        for _ in range(_TURNS):
            old, version, refused = self._current(path)
            new = change(old)
            if new == old:
                return
            if refused and not self._has_conditions:
                raise refused
            try:
                self._put(
                    path, new, _JSON_TYPE, mode=version if self._has_conditions else "overwrite"
                )
            except (exceptions.PreconditionError, exceptions.AlreadyExistsError):
                if refused:  # it is there, and not for us to read
                    raise refused from None
                continue
            except _NoConditionsError:
                if refused:
                    raise refused from None
                self._has_conditions = False
                self._put(path, new, _JSON_TYPE)
            if self._has_conditions:
                return
            # The bucket takes no conditions: look whether another publisher overwrote ours.
        raise TransferError(f"{self.name}/{path}: another publisher keeps replacing it; try again")

    def close(self) -> None:
        """Connections end with the process; there is no way to end them before."""

    def _current(self, path: str) -> tuple[bytes | None, PutMode, AccessDeniedError | None]:
        """The object, the condition to replace it, and an error that may mean it is absent."""
        import obstore  # noqa: PLC0415 - an extra

        what, most = f"{self.name}/{path}", self._limits.manifest_bytes
        try:
            result = obstore.get(self._bucket.store, path)
            meta = result.meta
            if meta["size"] > most:
                raise LimitError(f"{what} has {meta['size']} bytes, the limit is {most}")
            data = bytes(result.bytes())
        except (obstore.exceptions.BaseError, OSError) as error:
            ours = self._bucket.answered(error, what).error
            if isinstance(ours, _PERHAPS_ABSENT):
                return None, "create", ours if isinstance(ours, AccessDeniedError) else None
            raise ours from None
        version: UpdateVersion = {}  # what is None in it would be refused
        if e_tag := meta["e_tag"]:
            version["e_tag"] = e_tag
        if number := meta["version"]:
            version["version"] = number
        if not version:
            self._has_conditions = False
        return data, version, None

    def _put(
        self,
        path: str,
        data: bytes | Iterator[bytes | memoryview],
        kind: dict[str, str],
        **how: Any,
    ) -> None:
        import obstore  # noqa: PLC0415 - an extra
        from obstore import exceptions  # noqa: PLC0415

        is_conditional = how.get("mode", "overwrite") != "overwrite"
        try:
            obstore.put(
                self._bucket.store,
                path,
                data,
                attributes=kind,
                max_concurrency=_PARTS_AT_ONCE,
                **how,
            )
        except (exceptions.PreconditionError, exceptions.AlreadyExistsError):
            if is_conditional:
                raise
            raise TransientError(
                f"{self.name}/{path}: another publisher writes it at the same time"
            ) from None
        except (exceptions.BaseError, OSError) as error:
            answered = self._bucket.answered(error, f"{self.name}/{path}")
            is_unknown = answered.status in _NO_CONDITIONS or isinstance(
                error, exceptions.NotSupportedError
            )
            if is_conditional and is_unknown:
                raise _NoConditionsError from None
            raise answered.error from None


class _NoConditionsError(Exception):
    """The bucket does not know conditional writes."""
