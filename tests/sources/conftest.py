"""One blob and one manifest, served by the loopback registry.

Sources that are closed when the test ends.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.helpers.build.images import Layout
from tests.helpers.servers.registry import Registry
from zchunked.oci.digest import digest_of
from zchunked.oci.documents import OCI_MANIFEST, Descriptor
from zchunked.oci.reference import parse_reference
from zchunked.sources import open_source
from zchunked.sources.network import Network
from zchunked.sources.registry import RegistrySource
from zchunked.sources.traffic import Traffic

DATA = random.Random(1).randbytes(300_000)
BLOB = Descriptor("application/octet-stream", digest_of(DATA), len(DATA))
MANIFEST = b'{"schemaVersion":2}'

Open = Callable[..., RegistrySource]


@pytest.fixture
def traffic() -> Traffic:
    return Traffic(time.monotonic)


@pytest.fixture
def layout() -> Layout:
    digest = digest_of(MANIFEST)
    return Layout({"v1": digest}, {digest: (OCI_MANIFEST, MANIFEST)}, {BLOB.digest: DATA})


@pytest.fixture
def open_at(traffic: Traffic) -> Iterator[Open]:
    """Opens a registry's image, with an empty environment."""
    opened: list[RegistrySource] = []

    def open_(registry: Registry | str, tag: str = "v1", **options: Any) -> RegistrySource:
        text = registry if isinstance(registry, str) else registry.reference(tag)
        hosts = options.pop("hosts", None)
        network = Network(**{"traffic": traffic, "stall_seconds": 2.0, **options})
        source = open_source(parse_reference(text), network, hosts=hosts)
        assert isinstance(source, RegistrySource)
        opened.append(source)
        return source

    yield open_
    for source in opened:
        source.close()
