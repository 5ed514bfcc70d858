"""Every kind of source over the same content: the list that the contract suite goes through."""

from __future__ import annotations

import gzip
import io
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.build.images import Layout, write_layout
from tests.helpers.servers.memory import MemorySource
from tests.helpers.servers.registry import Registry
from zchunked.interfaces import HostMemory, Source
from zchunked.oci.reference import parse_image
from zchunked.sources import open_source
from zchunked.sources.layout import Documents
from zchunked.sources.network import Network
from zchunked.sources.traffic import Traffic

Opened = tuple[Source, Traffic]


@dataclass(frozen=True)
class Place:
    """Content within reach of one kind of source."""

    base: str
    """A reference without tag and digest; nothing for what has none."""
    open: Callable[..., Opened]
    """(tag=None, digest=None, hosts=None, documents=None) → a source to close, and its traffic."""
    served: Callable[[], tuple[int, int]] | None = None
    """Requests and body bytes by the server's own count; None where there is no server."""


Kind = Callable[[Layout, Path], AbstractContextManager[Place]]
"""Puts the content somewhere, perhaps into the folder."""


def place_at(
    base: str,
    served: Callable[[], tuple[int, int]] | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    registries_conf: Path | None = None,
) -> Place:
    """A place that references lead to, opened as the command does."""

    def open_(
        tag: str | None = None,
        digest: str | None = None,
        hosts: HostMemory | None = None,
        documents: Documents | None = None,
    ) -> Opened:
        traffic = Traffic(time.monotonic)
        text = base + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
        source = open_source(
            parse_image(text),
            Network(traffic, environment or {}, stall_seconds=2.0, registries_conf=registries_conf),
            hosts=hosts,
            documents=documents,
        )
        return source, traffic

    return Place(base, open_, served)


@contextmanager
def memory(content: Layout, _: Path) -> Iterator[Place]:
    def open_(tag: str | None = None, digest: str | None = None, **_: object) -> Opened:
        found = Layout(
            content.tags | ({"": digest} if digest else {}), content.manifests, content.blobs
        )
        source = MemorySource(found, "" if digest else tag or next(iter(content.tags)))
        return source, source.traffic

    yield Place("", open_)


@contextmanager
def directory(content: Layout, folder: Path) -> Iterator[Place]:
    yield place_at(f"oci:{write_layout(folder / 'layout', content)}")


def archive(pack: Callable[[bytes], bytes] = bytes) -> Kind:
    """An OCI archive; `pack` compresses the whole of it."""

    @contextmanager
    def kind(content: Layout, folder: Path) -> Iterator[Place]:
        folder.mkdir(exist_ok=True)
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as tar:
            tar.add(write_layout(folder / "layout", content), ".")
        path = folder / "app.tar"
        path.write_bytes(pack(made.getvalue()))
        yield place_at(f"oci-archive:{path}")

    return kind


def registry(**habits: object) -> Kind:
    return _served(lambda server: f"{server.host}/{server.repository}", habits)


def static(**habits: object) -> Kind:
    return _served(lambda server: f"oci+{server.layout_url}", habits)


@contextmanager
def bucket(content: Layout, _: Path) -> Iterator[Place]:
    """The registry's static layout, as a bucket of that name to a client of S3."""
    with Registry(content) as server:
        accounts = server.accounts
        environment = {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
        yield place_at("s3://layout", lambda: (accounts.count(), accounts.body_bytes), environment)


def _served(base: Callable[[Registry], str], habits: dict[str, object]) -> Kind:
    @contextmanager
    def kind(content: Layout, _: Path) -> Iterator[Place]:
        with Registry(content, **habits) as server:  # type: ignore[arg-type]
            accounts = server.accounts
            yield place_at(base(server), lambda: (accounts.count(), accounts.body_bytes))

    return kind


@contextmanager
def mirrored(content: Layout, folder: Path) -> Iterator[Place]:
    """A mirror that is down, one that lacks all blobs, and the registry behind them."""
    lacking = Layout(content.tags, content.manifests, {})
    with Registry(lacking) as mirror, Registry(content) as server:
        mirrors = "".join(
            [f'[[registry.mirror]]\nlocation = "{host}"\n' for host in ("127.0.0.1:1", mirror.host)]
        )
        conf = folder / "registries.conf"
        conf.write_text(f'[[registry]]\nlocation = "{server.host}"\n{mirrors}')
        counts = (mirror.accounts, server.accounts)
        yield place_at(
            f"{server.host}/{server.repository}",
            lambda: (sum(one.count() for one in counts), sum(one.body_bytes for one in counts)),
            registries_conf=conf,
        )


KINDS: dict[str, Kind] = {
    "memory": memory,
    "registry": registry(),
    "registry-token-redirect": registry(auth="bearer", redirect=True),
    "registry-with-mirrors": mirrored,
    "layout-directory": directory,
    "layout-archive": archive(),
    "layout-archive-gzip": archive(gzip.compress),
    "layout-http": static(),
    "layout-http-single-ranges": static(multi_range="200"),
    "layout-bucket": bucket,
    "layout-http-without-ranges": static(multi_range="200", single_range="200"),
}
"""Another implementation of the seam joins here."""

LAYOUTS = [name for name in KINDS if name.startswith("layout")]
