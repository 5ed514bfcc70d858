"""Errors, by who must react; each class has the exit code that the shell sees.

>>> from zchunked import errors
>>> issubclass(errors.TransferError, errors.ZPullError), errors.IntegrityError.exit_code
(True, 6)
"""

from __future__ import annotations

from typing import Any

from zchunked.oci.quoting import safe_line


class ZPullError(Exception):
    """Root of all errors. The message is one line for people: what, where, expected, got, remedy.

    Whatever text of a peer it repeats, it is one printable line and holds no password of a URL.

    Example:
        >>> import zchunked
        >>> try:
        ...     zchunked.pull("oci:demo:absent", store="store")
        ... except zchunked.ZPullError as error:
        ...     error.exit_code
        3
    """

    exit_code = 1
    receipt: Any = None
    """Of a failed pull: the `zchunked.receipt.Receipt` of its cost; None where none began."""

    sent: Any = None
    """Of a publication that failed: the `zchunked.results.Sent` of what went up."""

    uploaded: Any = None
    """Of a push that failed: the `zchunked.results.Uploaded` of what went up."""

    converted: Any = None
    """Of a failed conversion: the `zchunked.results.ConvertResult` of what was done by then."""

    def __init__(self, message: str = "") -> None:
        super().__init__(safe_line(message))


class UsageError(ZPullError):
    """The command line cannot mean anything we do."""

    exit_code = 2


class InvalidReferenceError(UsageError):
    """The image reference does not follow the grammar."""


class NotFoundError(ZPullError):
    """The source has no such image, platform or blob."""

    exit_code = 3


class NoMatchError(NotFoundError):
    """An index has no image for the platform."""


class AccessDeniedError(ZPullError):
    """Refused even with a fresh token. Never retried."""

    exit_code = 4


class TransferError(ZPullError):
    """The network or a server failed us; what arrived is kept, so the same command resumes."""

    exit_code = 5


class PermanentError(TransferError):
    """The same request would fail in the same way, however long one waits."""


class TransientError(TransferError):
    """A failure that karma may forgive.

    `retry_after` is the server's own wish in seconds, None when it has none. `most_tries` bounds
    the tries of one request that may end so, one after the other, where waiting seldom helps; None
    leaves it to karma. `if_lasting`: what it turns out to be once they are used up; None: a failure
    of the network.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        most_tries: int | None = None,
        if_lasting: ZPullError | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.most_tries = most_tries
        self.if_lasting = if_lasting


class RangeIgnoredError(TransferError):
    """The host answers a range request with something else: it has no ranges, for now."""


class MultiRangeRefusedError(TransferError):
    """The host refuses several ranges in one request; it has been noted, so ask for single ones."""


class IntegrityError(ZPullError):
    """Bytes are not what their digest promised. Nothing of them is kept."""

    exit_code = 6


class DamagedLayerError(IntegrityError):
    """A stored layer is no longer what was proved, by fault of the disk; a pull repairs it."""


class FormatError(ZPullError):
    """Metadata of a peer is malformed or contradicts itself."""

    exit_code = 7


class ArtifactError(FormatError):
    """A manifest that is no image's: a chart, a signature, an attestation."""


class LimitError(FormatError):
    """A number of a peer is above one of our limits."""


class UnsupportedLayerError(ZPullError):
    """The layer cannot be pulled in parts; the message is the reason. The pull takes it whole."""


class LocalError(ZPullError):
    """Our own disk or target: full, read-only, not empty."""

    exit_code = 8


class RefusedError(ZPullError):
    """The plan costs more than the person allowed."""

    exit_code = 9


class InterruptedPullError(ZPullError):
    """The person stopped it. The store is good and the same command resumes."""

    exit_code = 130
