"""Conversions of gzip layers to zstd:chunked, zpull and skopeo by turns, from layout to layout."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench.clients import Zpull, forget
from tests.bench.corpora import descriptor, finish, put
from tests.bench.measure import Command, Cost, middle, run
from tests.bench.results import Row
from tests.bench.suites import AFTER, Bench
from tests.helpers.servers import peers
from zchunked.formats.frames.decompress import unpacked

KINDS = {"large": "one large layer", "python": "several layers", "node": "many small files"}
SUITE, _WHERE, _CASE = "converts", "level 3", "convert"


def converts(bench: Bench) -> Iterator[Row]:
    """Each kind: the sources are made once, everything lies where the clients keep their files."""
    folder = bench.work / SUITE
    for name in ("node", "python"):
        fetch(bench.front.host, name, folder / name)
    largest(folder / "python", folder / "large")
    for name in KINDS:
        found: dict[str, list[Cost]] = {"zpull": [], "skopeo": []}
        for _ in range(bench.repeats):
            for client, costs in found.items():
                target = bench.work / "converted"
                forget(target)
                command = _COMMANDS[client](bench, folder / name, target)
                cost = run(command, bench.work / "said")
                size = 0 if cost.failed else _layers_bytes(target / "layout")
                costs.append(replace(cost, receipt={}, wire=size))
                forget(target)
        for client, costs in found.items():
            row = Row(SUITE, name, _WHERE, _CASE, client, middle(costs))
            bench.say(
                f"  {name:12} {client:12} {row.cost.failed or ''} {row.cost.wall:6.2f} s "
                f"{row.cost.cpu:6.2f} s CPU {row.cost.peak >> 20:4} MiB {row.cost.wire:12,} B"
            )
            yield row
    forget(folder)


def fetch(host: str, name: str, layout: Path) -> None:
    """The image as a layout of gzip layers, as most images have them."""
    copied = layout.with_suffix(".copied")
    copied.parent.mkdir(parents=True, exist_ok=True)
    source = f"docker://{host}/{name}:{AFTER}"
    peers.skopeo_new()("copy", "--src-tls-verify=false", source, f"oci:{copied}", timeout=600)
    manifest = _manifest(copied)
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    config = json.loads(_blob(copied, manifest["config"]).read_text())
    with ThreadPoolExecutor(2) as pool:
        layers = [*pool.map(lambda one: _zipped(_blob(copied, one), blobs), manifest["layers"])]
    document = manifest | {"config": put(layout, config, "config.v1+json"), "layers": layers}
    finish(layout, {AFTER: put(layout, document, "manifest.v1+json")})
    forget(copied)


def _zipped(source: Path, blobs: Path) -> dict[str, object]:
    """A layer with gzip instead of its compression; how it is listed."""
    encoder, growing = zlib.compressobj(6, wbits=31), blobs / source.name
    with source.open("rb") as file, growing.open("wb") as out:
        for piece in unpacked(iter(lambda: file.read(1 << 20), b"")):
            out.write(encoder.compress(piece))
        out.write(encoder.flush())
    with growing.open("rb") as made:
        hexed = hashlib.file_digest(made, "sha256").hexdigest()
    growing.rename(blobs / hexed)
    return descriptor(blobs.parents[1], hexed, "layer.v1.tar+gzip")


def largest(source: Path, target: Path) -> None:
    """A layout of one image, which has nothing but the largest layer of another."""
    manifest = _manifest(source)
    number, layer = max(enumerate(manifest["layers"]), key=lambda one: int(one[1]["size"]))
    config = json.loads(_blob(source, manifest["config"]).read_text())
    config["rootfs"]["diff_ids"] = [config["rootfs"]["diff_ids"][number]]
    config.pop("history", None)
    blobs = target / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (blobs / layer["digest"][7:]).hardlink_to(_blob(source, layer))
    described = put(target, config, "config.v1+json")
    document = manifest | {"config": described, "layers": [layer]}
    finish(target, {AFTER: put(target, document, "manifest.v1+json")})


def _manifest(layout: Path) -> dict[str, Any]:
    [entry] = json.loads((layout / "index.json").read_text())["manifests"]
    found: dict[str, Any] = json.loads(_blob(layout, entry).read_text())
    return found


def _blob(layout: Path, described: dict[str, Any]) -> Path:
    return layout.joinpath("blobs", *described["digest"].split(":"))


def _layers_bytes(layout: Path) -> int:
    return sum(layer["size"] for layer in _manifest(layout)["layers"])


def _zpull(bench: Bench, source: Path, target: Path) -> Command:
    return Zpull(bench.engine).convert(target, f"oci:{source}:{AFTER}", target / "layout")


def _skopeo(_: Bench, source: Path, target: Path) -> Command:
    tool = peers.skopeo_new()
    target.mkdir(parents=True)
    words = ("copy", "--dest-compress-format", "zstd:chunked")
    layouts = (f"oci:{source}:{AFTER}", f"oci:{target}/layout:{AFTER}")
    return Command((*tool.argv, *words, *layouts), tool.env)


_COMMANDS = {"zpull": _zpull, "skopeo": _skopeo}
