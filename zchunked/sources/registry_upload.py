"""Write to a registry: what it has, resumable blob uploads, manifests (distribution spec, push).

Tries once; who retries asks a session first how far it got. Credentials go to the registry alone:
an upload location on another host is asked without any.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from zchunked.errors import NotFoundError, TransferError, TransientError
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import Digest, digest_of
from zchunked.oci.documents import OCI_INDEX, Descriptor
from zchunked.sources.http.client import REDIRECTS, Body
from zchunked.sources.http.endpoint import RegistryEndpoint
from zchunked.sources.http.response import HttpResponse

_SEND = Callable[[], Iterable[bytes | memoryview]]
_RANGE = re.compile(r"(?:bytes[= ])?0-([0-9]{1,19})", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,19}", re.ASCII)
_COMMIT_SECONDS = 120.0  # a registry may hash or copy all of a blob before it answers
_MOST_REDIRECTS = 5
_OCTETS = {"Content-Type": "application/octet-stream"}


class UploadLostError(TransientError):
    """The registry knows nothing of this upload any more."""


class OffsetError(TransientError):
    """The registry wants bytes from another offset on; it says where when it is asked."""


class TooLargeError(TransientError):
    """Something on the way takes no body of that size."""


class ChunksRefusedError(TransferError):
    """The registry takes blobs in one piece alone."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload under way. `location`: its current URL, on any host; `offset`: bytes there.

    A location may hold what opens it, so it is not for messages. `min_chunk`: no chunk but the last
    may be shorter.
    """

    location: str = field(repr=False)
    offset: int = 0
    min_chunk: int = 0


class RegistryUploads:
    """One repository. Thread-safe.

    Raises AccessDeniedError, TransientError (worth another try) or TransferError.
    """

    def __init__(self, endpoint: RegistryEndpoint, limits: Limits = DEFAULT_LIMITS) -> None:
        self._endpoint, self._limits = endpoint, limits

    @property
    def name(self) -> str:
        """Host and repository, for messages."""
        return self._endpoint.name

    def close(self) -> None:
        self._endpoint.http.close()

    # ── what is there ──

    def has(self, blob: Descriptor) -> bool:
        """Whether the repository has the blob. One of another size is none that we would want."""
        answer = self._endpoint.ask(f"blobs/{blob.digest}", {}, follow=False, method="HEAD")
        with answer:
            answer.excerpt()
            if answer.status in REDIRECTS:  # it says where, so it has it
                return True
            return self._is_there(answer, blob.size, f"blob {blob.digest}")

    def _is_there(self, answer: HttpResponse, size: int, what: str) -> bool:
        if answer.status == 200:
            return answer.length in (None, size)
        if answer.status in (404, 405):  # some do not let everybody ask
            return False
        raise answer.status_error(f"{self.name}: {what}")

    # ── uploads ──

    def begin(self, mount: Digest | None = None, source: str | None = None) -> Upload | None:
        """Begin an upload; None where the registry mounted `mount` of `source` instead."""
        path = "blobs/uploads/"
        if mount is not None:
            path += f"?mount={quote(mount, safe=':')}" + (
                f"&from={quote(source, safe='/')}" if source else ""
            )
        answer = self._endpoint.ask(
            path, {}, follow=False, method="POST", body=self._body(0, lambda: ())
        )
        for _ in range(_MOST_REDIRECTS):
            if answer.status not in (307, 308) or not (location := answer.headers.get("Location")):
                break
            answer.excerpt()
            target = self._endpoint.http.redirected(answer.url, location)
            answer = self._ask(target, {}, method="POST", body=self._body(0, lambda: ()))
        if answer.status == 201 and mount is not None:
            answer.excerpt()
            return None
        if answer.status != 202:
            raise answer.status_error(f"{self.name}: beginning an upload")
        answer.excerpt()
        if not answer.headers.get("Location"):
            raise TransferError(
                f"{self.name}: the registry began an upload and does not say where (no Location)"
            )
        least = answer.headers.get("OCI-Chunk-Min-Length", "")
        found = Upload("", 0, int(least) if _COUNT.fullmatch(least) else 0)
        return replace(
            found, location=self._endpoint.http.redirected(answer.url, answer.headers["Location"])
        )

    def resumed(self, upload: Upload) -> Upload:
        """The upload's state at the registry. UploadLostError when it tells none."""
        answer = self._ask(upload.location, {})
        answer.excerpt()
        if answer.status in (200, 202, 204) and (offset := _offset(answer)) is not None:
            return replace(self._moved(upload, answer), offset=offset)
        if answer.status in (408, 425, 429) or answer.status >= 500:
            raise answer.status_error(f"{self.name}: asking for an upload")
        raise UploadLostError(f"{self.name}: the registry no longer knows an upload")

    def send(self, upload: Upload, size: int, pieces: _SEND) -> tuple[Body, Callable[[], Upload]]:
        """A chunk of `size` bytes at the upload's offset, to be sent by the call that is returned.

        That gives the upload as it is afterwards. The body tells, whatever happens, how much was
        handed over.
        """
        body = self._body(size, pieces)
        end = upload.offset + size

        def go() -> Upload:
            headers = {**_OCTETS, "Content-Range": f"{upload.offset}-{end - 1}"}
            answer = self._ask(upload.location, headers, method="PATCH", body=body)
            if answer.status in (200, 201, 202, 204):
                answer.excerpt()
                offset = _offset(answer)
                return replace(
                    self._moved(upload, answer), offset=end if offset is None else offset
                )
            raise self._refused(answer)

        return body, go

    def _refused(self, answer: HttpResponse) -> Exception:
        what = f"{self.name}: a chunk of an upload"
        refusal = answer.status_error(what)
        if answer.status in (404, 410):
            return UploadLostError(str(refusal))
        if answer.status == 416:
            return OffsetError(str(refusal))
        if answer.status == 413:
            return TooLargeError(str(refusal))
        if answer.status in (400, 405, 411, 415, 501):
            return ChunksRefusedError(str(refusal))
        return refusal

    def finish(self, upload: Upload, digest: Digest) -> None:
        """Finish: the blob appears under its digest. Raises UploadLostError when it does not."""
        self._close(upload, digest, self._body(0, lambda: ()))

    def put(
        self, upload: Upload, blob: Descriptor, pieces: _SEND
    ) -> tuple[Body, Callable[[], None]]:
        """Prepare to put a whole blob in one request: call what is returned."""
        body = self._body(blob.size, pieces)
        return body, lambda: self._close(upload, blob.digest, body)

    def _close(self, upload: Upload, digest: Digest, body: Body) -> None:
        sign = "&" if "?" in upload.location else "?"
        url = f"{upload.location}{sign}digest={quote(digest, safe=':')}"
        answer = self._ask(
            url,
            _OCTETS if len(body) else {},
            method="PUT",
            body=body,
            answer_seconds=_COMMIT_SECONDS,
        )
        if answer.status in (201, 204):
            answer.excerpt()
            return
        refusal = answer.status_error(f"{self.name}: the end of the upload of {digest}")
        # or its bytes are not what they should be: begin again
        if answer.status in (400, 404, 410, 416):
            raise UploadLostError(str(refusal))
        if answer.status == 413:
            raise TooLargeError(str(refusal))
        if answer.status in (200, 202):
            raise TransientError(
                f"{self.name}: the registry does not say that it has {digest} ({answer.status})"
            )
        raise refusal

    def _moved(self, upload: Upload, answer: HttpResponse) -> Upload:
        if location := answer.headers.get("Location"):
            return replace(upload, location=self._endpoint.http.redirected(answer.url, location))
        return upload

    def _ask(
        self,
        url: str,
        headers: dict[str, str],
        *,
        method: str = "GET",
        body: Body | None = None,
        answer_seconds: float | None = None,
    ) -> HttpResponse:
        """At a URL that the registry gave, of its own or of another host."""
        if self._endpoint.has(url):
            return self._endpoint.ask_url(
                url, headers, follow=False, method=method, body=body, answer_seconds=answer_seconds
            )
        return self._endpoint.http.send(
            url, headers, method=method, body=body, answer_seconds=answer_seconds
        )

    def _body(self, size: int, pieces: _SEND) -> Body:
        return Body(size, pieces, self._endpoint.http.traffic)

    # ── manifests ──

    def put_manifest(self, manifest: Descriptor, data: bytes, tag: str | None = None) -> bool:
        """Put a manifest by digest or tag; returns whether it is listed as a referrer."""
        body = self._body(len(data), lambda: [data])
        headers = {"Content-Type": manifest.media_type}
        path = f"manifests/{quote(tag or manifest.digest, safe=':')}"
        answer = self._endpoint.ask(path, headers, follow=False, method="PUT", body=body)
        if answer.status not in (200, 201, 202, 204):
            refusal = answer.status_error(f"{self.name}: manifest {tag or manifest.digest}")
            if isinstance(refusal, NotFoundError):
                raise TransferError(f"{refusal}; may a repository of that name be made there?")
            raise refusal
        answer.excerpt()
        said = answer.headers.get("Docker-Content-Digest", manifest.digest)
        if said != manifest.digest and said.startswith("sha256:"):
            raise TransferError(
                f"{self.name}: put manifest {manifest.digest}, the registry keeps {said!r:.80}"
            )
        return "OCI-Subject" in answer.headers

    def list_referrer(self, subject: Digest, listed: dict[str, object]) -> None:
        """List a referrer under the tag schema, where a registry has no referrers API."""
        tag = subject.replace(":", "-")
        answer = self._endpoint.ask(f"manifests/{tag}", {"Accept": OCI_INDEX})
        if answer.status not in (200, 404):
            raise answer.status_error(f"{self.name}: the list of referrers {tag}")
        old = answer.read(self._limits.manifest_bytes, f"the list of referrers {tag}")
        data = with_referrer(old if answer.status == 200 else None, listed)
        if data != old:
            self.put_manifest(Descriptor(OCI_INDEX, digest_of(data), len(data)), data, tag)


def with_referrer(index: bytes | None, listed: dict[str, object]) -> bytes:
    """An index with one more entry, or as it is if it has that."""
    document: dict[str, object] = {"schemaVersion": 2, "mediaType": OCI_INDEX}
    entries: list[object] = []
    if index is not None:
        try:
            document = json.loads(index)
            entries = list(document["manifests"])  # type: ignore[call-overload]
            if any(entry["digest"] == listed["digest"] for entry in entries):  # type: ignore[index]
                return index
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TransferError("the registry's list of referrers is malformed") from error
    return json.dumps(document | {"manifests": [*entries, listed]}, separators=(",", ":")).encode()


def _offset(answer: HttpResponse) -> int | None:
    """Bytes that the registry says it has; None when it does not say. `0-0` means none."""
    found = _RANGE.fullmatch(answer.headers.get("Range", "").strip())
    if found is None:
        return None
    last = int(found[1])
    return last + 1 if last else 0
