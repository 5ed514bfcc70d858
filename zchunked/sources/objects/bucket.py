"""The objects of a layout in a bucket (S3, Google, Azure), by `obstore`, which signs and sends but never retries."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zchunked.errors import LimitError, LocalError, RangeIgnoredError, TransferError, TransientError, UsageError
from zchunked.events import Requested
from zchunked.interfaces import Pieces
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.documents import Descriptor
from zchunked.oci.reference import LayoutReference, is_loopback
from zchunked.ranges import ByteRange
from zchunked.sources.http.tls import Trust, trust_from
from zchunked.sources.http.urls import netloc
from zchunked.sources.layout import check_size
from zchunked.sources.objects.bucket_errors import Answered, understood
from zchunked.sources.traffic import Traffic

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult
    from obstore.store import ObjectStore

_FOREVER = "30days"  # of a whole request: only silence ends one, however slow the link
_HINTS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY, or AZURE_SKIP_SIGNATURE=true if it is public",
}
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_SETTINGS = {
    "s3": (
        "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_TOKEN AWS_REGION AWS_DEFAULT_REGION "
        "AWS_SKIP_SIGNATURE AWS_VIRTUAL_HOSTED_STYLE_REQUEST AWS_UNSIGNED_PAYLOAD AWS_CHECKSUM_ALGORITHM "
        "AWS_CONDITIONAL_PUT AWS_REQUEST_PAYER AWS_METADATA_ENDPOINT AWS_WEB_IDENTITY_TOKEN_FILE AWS_ROLE_ARN "
        "AWS_ROLE_SESSION_NAME AWS_ENDPOINT_URL_STS AWS_CONTAINER_CREDENTIALS_RELATIVE_URI "
        "AWS_CONTAINER_CREDENTIALS_FULL_URI AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE AWS_SERVER_SIDE_ENCRYPTION "
        "AWS_SSE_KMS_KEY_ID AWS_SSE_BUCKET_KEY_ENABLED"
    ).split(),
    "gs": (
        "GOOGLE_SERVICE_ACCOUNT GOOGLE_SERVICE_ACCOUNT_PATH GOOGLE_SERVICE_ACCOUNT_KEY GOOGLE_APPLICATION_CREDENTIALS "
        "GOOGLE_SKIP_SIGNATURE GOOGLE_BEARER_TOKEN"
    ).split(),
    "az": (
        "AZURE_STORAGE_ACCOUNT_NAME AZURE_STORAGE_ACCOUNT_KEY AZURE_STORAGE_ACCESS_KEY AZURE_STORAGE_SAS_TOKEN "
        "AZURE_STORAGE_SAS_KEY AZURE_STORAGE_TOKEN AZURE_STORAGE_CLIENT_ID AZURE_CLIENT_ID AZURE_STORAGE_CLIENT_SECRET "
        "AZURE_CLIENT_SECRET AZURE_STORAGE_TENANT_ID AZURE_TENANT_ID AZURE_AUTHORITY_HOST AZURE_FEDERATED_TOKEN_FILE "
        "AZURE_MSI_ENDPOINT AZURE_USE_AZURE_CLI AZURE_STORAGE_USE_EMULATOR AZURE_SKIP_SIGNATURE"
    ).split(),
}
_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "SAS")


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket and a prefix in it, opened but not asked. `secrets`: what no message may repeat."""

    scheme: str
    name: str
    store: ObjectStore
    secrets: tuple[str, ...] = ()

    def answered(self, error: Exception, what: str) -> Answered:
        """What one of obstore's exceptions says."""
        return understood(error, what, secrets=self.secrets, hint=_HINTS.get(self.scheme, ""))


def open_bucket(
    reference: LayoutReference,
    environment: Mapping[str, str],
    traffic: Traffic,
    *,
    connect_seconds: float = 10.0,
    stall_seconds: float = 10.0,
    plain_http: bool = False,
    tls_verify: bool = True,
    cert_dir: Path | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> BucketObjects:
    """The objects below a bucket's prefix. Raises UsageError for settings that cannot be meant."""
    bucket = connect(
        reference,
        environment,
        {"read_timeout": _milliseconds(stall_seconds), "timeout": _FOREVER},
        retries=0,
        connect_seconds=connect_seconds,
        plain_http=plain_http,
        trust=trust_from(environment, verify=tls_verify, cert_dir=cert_dir),
    )
    return BucketObjects(bucket, traffic, limits=limits)


def connect(
    reference: LayoutReference,
    environment: Mapping[str, str],
    client: Mapping[str, Any],
    *,
    retries: int,
    connect_seconds: float = 10.0,
    plain_http: bool = False,
    trust: Trust | None = None,
) -> Bucket:
    """`client`: further options of obstore's client; `retries`: how many obstore makes by itself, within a minute."""
    try:
        from obstore import exceptions, store  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(f"{reference.name}: buckets need another package: pip install 'zpull[s3]'") from error
    scheme, (bucket, _, prefix) = reference.scheme, reference.base.partition("/")
    config = {name.lower(): environment[name] for name in _SETTINGS[scheme] if environment.get(name)}
    secrets = tuple(
        value
        for name, value in environment.items()
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_")) and any(word in name for word in _SECRET_WORDS)
    )
    options: dict[str, Any] = {"connect_timeout": _milliseconds(connect_seconds), **client}
    endpoint = next((environment[name] for name in _ENDPOINTS[scheme] if environment.get(name)), None)
    if endpoint:
        config[_ENDPOINTS[scheme][-1].lower()] = endpoint.rstrip("/")
        if endpoint.lower().startswith("http://"):
            may_be_plain = is_loopback(netloc(endpoint)) or plain_http or _is_on(environment, scheme)
            if not may_be_plain:
                raise UsageError(
                    f"{reference.name} would be read unencrypted from {netloc(endpoint)}; allow it with --plain-http"
                )
            options["allow_http"] = True
    if trust is not None:
        options |= _trusted(trust, environment)
    shared: dict[str, Any] = {
        "prefix": prefix or None,
        "config": config,
        "client_options": options,
        "retry_config": {"max_retries": retries, "retry_timeout": timedelta(seconds=60 if retries else 0)},
    }
    kinds = {"s3": store.S3Store, "gs": store.GCSStore, "az": store.AzureStore}
    try:
        opened: ObjectStore = kinds[scheme](bucket, **shared)
    except (exceptions.BaseError, ValueError, OSError) as error:
        answered = understood(error, reference.name, secrets=secrets, hint=_HINTS[scheme])
        raise UsageError(f"{answered.error}; {_HINTS[scheme]}") from None
    return Bucket(scheme, reference.name, opened, secrets)


def _is_on(environment: Mapping[str, str], scheme: str) -> bool:
    return scheme == "s3" and environment.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes", "on")


def _milliseconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def _trusted(trust: Trust, environment: Mapping[str, str]) -> dict[str, Any]:
    """The same certificates as for registries, beside those of the system; AWS has a variable of its own."""
    if not trust.verify:
        return {"allow_invalid_certificates": True}
    own = environment.get("AWS_CA_BUNDLE")
    files = [Path(own)] if own else [trust.bundle] if trust.bundle else []
    try:
        if trust.cert_dir is not None:
            files += [file for file in sorted(trust.cert_dir.iterdir()) if file.suffix == ".crt"]
        data = b"\n".join([file.read_bytes() for file in files])
    except OSError as error:
        raise LocalError(f"cannot read the certificates of {error.filename}: {error.strerror}") from error
    return {"root_certificate": data} if data.strip() else {}


class BucketObjects:
    """Fills `Objects`. One range per request: no bucket serves more. Pieces come as obstore hands them over."""

    def __init__(self, bucket: Bucket, traffic: Traffic, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self.name = bucket.name
        self._bucket, self._traffic, self._limits = bucket, traffic, limits

    def close(self) -> None:
        """Connections end with the process; there is no way to end them before."""

    def get(self, path: str, most: int) -> bytes:
        what = f"{self.name}/{path}"
        result = self._ask(path, {}, what)
        if (size := int(result.meta["size"])) > most:
            raise LimitError(f"{what} has {size} bytes, the limit is {most}")
        return b"".join(self._pieces(result, what))

    def spans_per_request(self, path: str, blob: Descriptor) -> int:
        return 1

    def read(self, path: str, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        what = f"{self.name}/{path}"
        for span in spans:
            is_whole = span == ByteRange(0, blob.size)
            try:
                result = self._ask(path, {} if is_whole else {"range": (span.start, span.end)}, what)
            except RangeIgnoredError:
                if span is spans[0]:
                    raise
                raise TransientError(f"{what}: a range is refused after other ranges were served") from None
            check_size(blob, int(result.meta["size"]), self.name)
            if tuple(result.range) != (span.start, span.end):
                raise TransferError(f"{what}: asked for {span}, the answer holds {ByteRange(*result.range)}")
            at = span.start
            for piece in self._pieces(result, what):
                yield [(at, piece)]
                at += len(piece)

    def _ask(self, path: str, options: GetOptions, what: str) -> GetResult:
        import obstore  # noqa: PLC0415 - an extra

        began = time.monotonic()
        try:
            result = obstore.get(self._bucket.store, path, options=options)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self._counted(error, what, began) from None
        start, end = result.range
        ranges = f"bytes={start}-{end - 1}" if options else ""
        self._traffic.asked(Requested("GET", what, 206 if options else 200, time.monotonic() - began, ranges))
        self._traffic.answered(time.monotonic() - began)
        return result

    def _pieces(self, result: GetResult, what: str) -> Iterator[bytes]:
        """Every byte that came before a break comes out before the error."""
        import obstore  # noqa: PLC0415 - an extra

        self._traffic.begun()
        try:
            pieces: Iterable[Any] = result.stream(min_chunk_size=1)
            for piece in pieces:
                self._traffic.received(len(piece))
                yield bytes(piece)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self._bucket.answered(error, what).error from None
        finally:
            self._traffic.ended()

    def _counted(self, error: Exception, what: str, began: float) -> Exception:
        """An error is an answer, too, and its body was received; nobody was asked where nobody could be reached."""
        answered = self._bucket.answered(error, what)
        if answered.has_asked:
            self._traffic.asked(Requested("GET", what, 0, time.monotonic() - began))
        self._traffic.received(answered.body_bytes)
        return answered.error
