"""Open what is behind HTTP: a registry with its mirrors, its write side, or a static layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zchunked.interfaces import HostMemory
from zchunked.oci.reference import LayoutReference, Reference
from zchunked.sources.config.registries import Endpoint, endpoints
from zchunked.sources.config.registries_files import registries_from
from zchunked.sources.endpoints import registry_endpoint, static_endpoint
from zchunked.sources.layout import Documents, LayoutSource
from zchunked.sources.network import Network
from zchunked.sources.objects.web import StaticObjects
from zchunked.sources.registry import RegistrySource

if TYPE_CHECKING:
    from zchunked.sources.mirrors import MirroredSource
    from zchunked.sources.registry_upload import RegistryUploads


def registry_source(
    reference: Reference, network: Network, hosts: HostMemory | None = None
) -> RegistrySource | MirroredSource:
    """The registry itself, or it and its mirrors, as registries.conf says. The caller closes it."""
    ends = _endpoints(reference, network)
    sources = [
        RegistrySource(
            end.reference,
            registry_endpoint(network, end, reference.host),
            hosts=hosts,
            limits=network.limits,
        )
        for end in ends
    ]
    if len(sources) == 1:
        return sources[0]
    from zchunked.sources.mirrors import Member, MirroredSource  # noqa: PLC0415 - few registries have any

    return MirroredSource(
        [
            Member(end.reference.name, source, is_mirror=end.is_mirror)
            for end, source in zip(ends, sources, strict=True)
        ]
    )


def open_uploads(
    reference: Reference, network: Network, mount_from: Sequence[str] = ()
) -> RegistryUploads:
    """The write side of the registry itself, whatever mirrors it has. The caller closes it.

    `mount_from`: repositories of the same registry that blobs may be mounted from.
    """
    from zchunked.sources.registry_upload import RegistryUploads  # noqa: PLC0415 - most commands only read

    end = _endpoints(reference, network)[-1]
    scopes = [
        f"repository:{end.reference.repository}:pull,push",
        *(f"repository:{one}:pull" for one in mount_from),
    ]
    endpoint = registry_endpoint(network, end, reference.host, " ".join(scopes))
    return RegistryUploads(endpoint, network.limits)


def layout_source(
    reference: LayoutReference,
    network: Network,
    hosts: HostMemory | None = None,
    documents: Documents | None = None,
) -> LayoutSource:
    """A layout on a web server. The caller closes it. `documents` as `open_source` takes them.

    Raises UsageError for plain http over a network, unless that is allowed.
    """
    limits = network.limits
    objects = StaticObjects(static_endpoint(network, reference), hosts=hosts, limits=limits)
    return LayoutSource(reference, objects, documents=documents, limits=limits)


def _endpoints(reference: Reference, network: Network) -> list[Endpoint]:
    found = registries_from(network.environment, given=network.registries_conf)
    return endpoints(found, reference)
