"""The images in `fixtures/`, and the truths known about them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parents[3] / "fixtures"


@dataclass(frozen=True, slots=True, order=True)
class Golden:
    """One tag of one set."""

    set: str
    tag: str

    def __str__(self) -> str:
        return f"{self.set}:{self.tag}"

    @property
    def layout(self) -> Path:
        """The OCI layout directory it lies in, together with the rest of its set."""
        return FIXTURES / self.set / "oci"

    @property
    def expect(self) -> dict[str, Any]:
        """EXPECT.json as it is; see `fixtures/README.md`. Shared: do not change it."""
        return _expect(self)

    @property
    def is_index(self) -> bool:
        return "instances" in self.expect

    @property
    def verifiable(self) -> bool:
        """Whether anyone can rebuild what the config promises."""
        return bool(self.expect.get("verifiable", True))

    @property
    def layers(self) -> list[dict[str, Any]]:
        """The truths about each layer, bottom first; none for an index."""
        return list(self.expect.get("layers", ()))

    def entries(self, layer: int) -> list[dict[str, Any]]:
        """The members of a layer's tar, looked up under another tag where this one refers to it."""
        found = self.layers[layer]
        source = Golden(self.set, found["entries_as"]) if "entries_as" in found else self
        return list(source.layers[layer]["entries"])

    @property
    def rootfs(self) -> list[Any]:
        """The flattened tree, looked up like `entries`: `[path, layer, entry number or None]`."""
        source = Golden(self.set, self.expect["rootfs_as"]) if "rootfs_as" in self.expect else self
        return list(source.expect["rootfs"])

    def blob(self, digest: str) -> bytes:
        return (self.layout / "blobs" / digest.replace(":", "/", 1)).read_bytes()


@cache
def _expect(golden: Golden) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (FIXTURES / golden.set / f"{golden.tag}.EXPECT.json").read_bytes()
    )
    return found


def all_golden() -> list[Golden]:
    """Every tag of every set, in order."""
    found = FIXTURES.glob("*/*.EXPECT.json")
    return sorted(
        Golden(path.parent.name, path.name.removesuffix(".EXPECT.json")) for path in found
    )
