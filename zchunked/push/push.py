"""Push a shipment to a registry: the blobs that it lacks, then the documents in order."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from functools import partial

from zchunked.download.session import Session
from zchunked.download.workers import WorkerPool
from zchunked.events import Noted, Planned
from zchunked.export.shipment import Parcel, Shipment
from zchunked.oci.digest import Digest, parse_digest, short
from zchunked.oci.documents import Descriptor
from zchunked.push.upload import BlobUpload, ChunkSizes, Pushed, UploadMemory
from zchunked.sources.registry_upload import RegistryUploads


class Pusher:
    """One shipment to one repository. `run` it once, on the caller's thread; events go there."""

    def __init__(
        self,
        registry: RegistryUploads,
        memory: UploadMemory,
        session: Session,
        mount_from: Sequence[str] = (),
    ) -> None:
        """`session`: of this push alone. `mount_from`: repositories that may have the blobs."""
        self._registry, self._memory, self._session = registry, memory, session
        self._mount_from = tuple(mount_from)
        self._lock = threading.Lock()
        self._chameleon = self._session.chameleon
        self._sizes = ChunkSizes()
        self._lacking: list[Parcel] = []
        self.pushed = Pushed()
        """How far it got; true at any time."""

    @property
    def retries(self) -> int:
        return self._chameleon.retries

    def run(self, shipment: Shipment, tag: str | None) -> None:
        """What arrived stays; the same call goes on where this one ended, in another process too.

        Raises AccessDeniedError, TransferError, DamagedLayerError, InterruptedPullError.
        """
        with self._session.workers(send=self._session.jobs) as pool:
            self._push(pool, shipment, tag)

    def _push(self, pool: WorkerPool, shipment: Shipment, tag: str | None) -> None:
        parcels = list({parcel.blob.digest: parcel for parcel in shipment.parcels}.values())
        for number, parcel in enumerate(parcels):
            pool.submit("send", partial(self._look, parcel))
            if not number:  # it learns how to speak to the registry, for all of them
                self._session.wait()
        self._session.wait()
        lacking = sum(parcel.blob.size for parcel in self._lacking)
        self._session.show(
            Planned(self.pushed.skipped_bytes + lacking, self.pushed.skipped_bytes, lacking)
        )
        # The largest first, or it would end alone
        for parcel in sorted(self._lacking, key=lambda one: -one.blob.size):
            pool.submit("send", partial(self._upload, parcel))
        self._session.wait()
        for manifest, data in shipment.documents:
            name = tag if manifest is shipment.root else None
            pool.submit("send", partial(self._describe, manifest, data, name))
            self._session.wait()

    def _look(self, parcel: Parcel) -> None:
        is_there = self._chameleon.run(lambda: self._registry.has(parcel.blob))
        with self._lock:
            if is_there:
                self.pushed.skipped += 1
                self.pushed.skipped_bytes += parcel.blob.size
            else:
                self._lacking.append(parcel)

    def _upload(self, parcel: Parcel) -> None:
        upload = BlobUpload(parcel, self._registry, self._memory, self._sizes, self._chameleon)
        try:
            self._chameleon.run(partial(upload.resume, self._mount_from), lambda: upload.new_bytes)
            with self._lock:
                self.pushed.blobs += not upload.is_mounted
                self.pushed.mounted += upload.is_mounted
        finally:
            with self._lock:
                self.pushed.sent += upload.sent
                self.pushed.sent_twice += upload.sent_twice
                self.pushed.resumed_bytes += upload.resumed
        how = "mounted" if upload.is_mounted else "sent"
        self._session.emit(Noted(f"{how} {short(parcel.blob.digest)}, {parcel.blob.size} bytes"))

    def _describe(self, manifest: Descriptor, data: bytes, tag: str | None) -> None:
        is_listed = self._chameleon.run(lambda: self._registry.put_manifest(manifest, data, tag))
        self._chameleon.gain(len(data))
        entry = None if is_listed else _as_referrer(manifest, data)
        if entry is not None:
            subject, listed = entry
            self._chameleon.run(lambda: self._registry.list_referrer(subject, listed))


def _as_referrer(manifest: Descriptor, data: bytes) -> tuple[Digest, dict[str, object]] | None:
    """What it refers to, and how a list of referrers names it; None for what refers to nothing."""
    document = json.loads(data)
    subject = document.get("subject")
    if not isinstance(subject, dict):
        return None
    config = document.get("config")
    kind = document.get("artifactType") or (
        config.get("mediaType") if isinstance(config, dict) else None
    )
    found = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": manifest.size,
        "artifactType": kind,
    }
    found["annotations"] = document.get("annotations")
    return parse_digest(str(subject.get("digest")), "the subject's digest"), {
        k: v for k, v in found.items() if v
    }
