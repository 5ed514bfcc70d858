"""Sources: where an image's bytes come from. `open_source` picks one for a reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zchunked.interfaces import HostMemory
from zchunked.oci.reference import ImageReference, LayoutReference
from zchunked.sources.config.small_files import check_authfile
from zchunked.sources.layout import Documents, LayoutSource
from zchunked.sources.network import Network
from zchunked.sources.objects.directory import DirectoryObjects

if TYPE_CHECKING:
    from zchunked.sources.mirrors import MirroredSource
    from zchunked.sources.registry import RegistrySource


def open_source(
    reference: ImageReference,
    network: Network,
    *,
    hosts: HostMemory | None = None,
    documents: Documents | None = None,
    spool: Path | None = None,
) -> RegistrySource | MirroredSource | LayoutSource:
    """The source of this reference; the caller closes it. Nothing is asked before its first use.

    Args:
        reference: what the person typed.
        network: how servers are reached; its traffic counts what they send.
        hosts: what is remembered of hosts. None: nothing, beyond this source.
        documents: manifests that are in the store already, by digest.
        spool: a folder with room for an archive that is compressed or a pipe. None: the
            system's folder for temporary files.

    Raises UsageError for what the options do not allow, what reading registries.conf raises, and
    AccessDeniedError for an image that it blocks.
    """
    authfile, limits = network.authfile, network.limits
    if authfile is not None:
        check_authfile(authfile)
    if isinstance(reference, LayoutReference):
        if reference.scheme == "oci":
            directory = DirectoryObjects(Path(reference.base))
            return LayoutSource(
                reference, directory, files=directory, documents=documents, limits=limits
            )
        if reference.scheme in ("oci-archive", "docker-archive"):
            from zchunked.sources.archives.docker_archive import open_archive  # noqa: PLC0415 - loads tarfile

            archive = open_archive(reference, spool=spool, limits=limits)
            return LayoutSource(
                reference, archive, is_local=True, documents=documents, limits=limits
            )
        if reference.scheme in ("s3", "gs", "az"):
            from zchunked.sources.objects.bucket_objects import open_bucket  # noqa: PLC0415 - an extra

            bucket = open_bucket(reference, network)
            return LayoutSource(reference, bucket, documents=documents, limits=limits)
    # The network libraries take time to load.
    from zchunked.sources.connect import layout_source, registry_source  # noqa: PLC0415

    if isinstance(reference, LayoutReference):
        return layout_source(reference, network, hosts, documents)
    return registry_source(reference, network, hosts)
