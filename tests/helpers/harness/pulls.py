"""Pulls within the test's own process, from memory into a folder."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.servers.memory import MemorySource
from zchunked.events import Event
from zchunked.oci.digest import Digest
from zchunked.oci.platform import Platform
from zchunked.oci.reference import parse_image
from zchunked.options import Options, Patience
from zchunked.pull.origin import Origin
from zchunked.pull.pull import Pull
from zchunked.receipt import Receipt
from zchunked.store import Store
from zchunked.store.images import StoredImage

AMD64 = Platform("linux", "amd64")
IMPATIENT = Patience(0)


@dataclass
class Outcome:
    """A receipt, and what came of it."""

    receipt: Receipt
    events: list[Event] = field(default_factory=list)
    image: StoredImage | None = None


def pull(
    source: MemorySource,
    store: Store,
    name: str = "example.com/app:t",
    digest: Digest | None = None,
    outcome: Outcome | None = None,
    **options: Any,
) -> Outcome:
    """Raises what the pull raises; the outcome that was passed in is filled in that case too."""
    outcome = outcome or Outcome(Receipt(name))
    defaults: dict[str, Any] = {"platform": AMD64, "jobs": 4, "patience": IMPATIENT}
    settings = Options(**defaults | options)
    source.traffic.__init__(time.monotonic)  # type: ignore[misc]
    source.asked.clear()
    origin = Origin(parse_image(name), source, source.traffic, digest)
    work = Pull(origin, store, settings, outcome.receipt, outcome.events.append)
    outcome.image = work.run()
    return outcome


def open_store(path: Path) -> Store:
    return Store(path / "store")
