"""Limit one image over all its layers: memory of TOCs, zeros to hash, bytes of tars."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Literal

from zchunked.errors import LimitError, UnsupportedLayerError
from zchunked.limits import DEFAULT_LIMITS, Limits

_What = Literal["entries", "text", "holes", "files", "tar"]


class ImageBudget:
    """Thread-safe. A layer that is read again gives back what it had taken before."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._spent: dict[tuple[_What, str], int] = {}  # by layer
        self._totals: dict[_What, int] = {}
        self.blob_bytes: int | None = None
        """Of all layers, as the manifest lists them; None: unknown, and so is their content."""

    def layer(self, name: str) -> LayerBudget:
        """The share of one layer, whose TOC is read from its start."""
        self.give_back(name, "entries", "text", "holes", "files")
        return LayerBudget(self, name, self._limits)

    def counted(self, name: str, tar: Iterable[bytes]) -> Iterator[bytes]:
        """The tar of a layer, from its start. LimitError where that of the image gets too large."""
        self.give_back(name, "tar")
        for block in tar:
            self.hold_tar(name, "tar", len(block))
            yield block

    def spend(self, what: _What, name: str, amount: int) -> int:
        """Returns what all layers have taken."""
        with self._lock:
            self._spent[what, name] = self._spent.get((what, name), 0) + amount
            total = self._totals[what] = self._totals.get(what, 0) + amount
            return total

    def give_back(self, name: str, *kinds: _What) -> None:
        """Whatever the layer has taken of these."""
        with self._lock:
            for what in kinds:
                self._totals[what] = self._totals.get(what, 0) - self._spent.pop((what, name), 0)

    def hold_tar(self, name: str, what: _What, amount: int) -> None:
        total = self.spend(what, name, amount)
        limits = self._limits
        if self.blob_bytes is None:
            return
        most = limits.image_tar_bytes + limits.image_tar_ratio * self.blob_bytes
        if total > most:
            raise LimitError(
                f"the image unpacks to {total} bytes or more, the limit is {most} "
                f"for its {self.blob_bytes} bytes: it looks like a decompression bomb"
            )


class LayerBudget:
    """The share of one layer. UnsupportedLayerError when over it: the layer comes whole instead."""

    def __init__(self, image: ImageBudget, name: str, limits: Limits) -> None:
        self._image, self._name, self._limits = image, name, limits

    def take_text(self, size: int) -> None:
        """Bytes of JSON, before they are read."""
        self._hold("text", size, self._limits.image_toc_bytes, "bytes")

    def take_entries(self, count: int) -> None:
        self._hold("entries", count, self._limits.image_entries_count, "entries")

    def take_holes(self, size: int) -> None:
        """Bytes of zeros, before they are hashed."""
        total = self._image.spend("holes", self._name, size)
        if total > (most := self._limits.image_hole_bytes):
            self._image.give_back(self._name, "holes")
            raise UnsupportedLayerError(
                f"the image's files have holes of {total} bytes or more, the limit is {most}"
            )

    def take_files(self, size: int, payload: int) -> None:
        """Bytes of files, and the compressed ones that they are said to be made of."""
        self._image.hold_tar(self._name, "files", size)
        most = self._limits.image_tar_bytes + self._limits.image_tar_ratio * payload
        if size > most:
            raise UnsupportedLayerError(
                f"its files of {size} bytes lie in {payload}, the limit for that is {most}"
            )

    def _hold(self, what: Literal["entries", "text"], amount: int, most: int, unit: str) -> None:
        total = self._image.spend(what, self._name, amount)
        if total > most:
            self._image.give_back(self._name, "entries", "text")
            raise UnsupportedLayerError(
                f"the image's tables of contents have {total} {unit} or more, the limit is {most}"
            )
