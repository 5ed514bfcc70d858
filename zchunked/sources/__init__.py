"""Sources: where an image's bytes come from. `open_source` picks one for a reference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from zchunked.errors import UsageError
from zchunked.interfaces import HostMemory
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.reference import ImageReference, LayoutReference
from zchunked.sources.archive import open_archive
from zchunked.sources.layout import Documents, LayoutSource
from zchunked.sources.objects.directory import DirectoryObjects
from zchunked.sources.traffic import Traffic

if TYPE_CHECKING:
    from zchunked.sources.mirrors import MirroredSource
    from zchunked.sources.registry import RegistrySource


def open_source(
    reference: ImageReference,
    *,
    environment: Mapping[str, str],
    traffic: Traffic,
    hosts: HostMemory | None = None,
    jobs: int = 8,  # noqa: ARG001 - connections are opened as threads ask for them
    connect_seconds: float = 10.0,
    stall_seconds: float = 10.0,
    plain_http: bool = False,
    tls_verify: bool = True,
    cert_dir: str | Path | None = None,
    authfile: str | Path | None = None,
    credentials: tuple[str, str] | None = None,
    registries_conf: str | Path | None = None,
    documents: Documents | None = None,
    spool: Path | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> RegistrySource | MirroredSource | LayoutSource:
    """The source of this reference; close it when done. Nothing is asked before its first use.

    `documents`: manifests that are here already, by digest. `spool`: a folder with room for an archive that comes
    compressed or through a pipe; the system's folder for temporary files by default. Raises UsageError for what the
    options do not allow, what reading registries.conf raises, and AccessDeniedError for an image that it blocks.
    """
    if authfile is not None and not Path(authfile).exists():
        raise UsageError(f"{authfile}: there is no such file of credentials")
    if isinstance(reference, LayoutReference):
        if reference.scheme == "oci":
            directory = DirectoryObjects(Path(reference.base))
            return LayoutSource(reference, directory, files=directory, documents=documents, limits=limits)
        if reference.scheme in ("oci-archive", "docker-archive"):
            archive = open_archive(reference, spool=spool, limits=limits)
            return LayoutSource(reference, archive, is_local=True, documents=documents, limits=limits)
        if reference.scheme in ("s3", "gs", "az"):
            from zchunked.sources.objects.bucket import open_bucket  # noqa: PLC0415 - an extra

            bucket = open_bucket(
                reference,
                environment,
                traffic,
                connect_seconds=connect_seconds,
                stall_seconds=stall_seconds,
                plain_http=plain_http,
                tls_verify=tls_verify,
                cert_dir=Path(cert_dir) if cert_dir else None,
            )
            return LayoutSource(reference, bucket, documents=documents, limits=limits)
    from zchunked.sources.connect import Connector  # noqa: PLC0415 - the network libraries take time to load

    web = Connector(
        environment,
        traffic,
        hosts,
        connect_seconds=connect_seconds,
        stall_seconds=stall_seconds,
        plain_http=plain_http,
        tls_verify=tls_verify,
        cert_dir=Path(cert_dir) if cert_dir else None,
        authfile=Path(authfile) if authfile else None,
        credentials=credentials,
        registries_conf=Path(registries_conf) if registries_conf else None,
        documents=documents,
        limits=limits,
    )
    return web.layout(reference) if isinstance(reference, LayoutReference) else web.registry(reference)
