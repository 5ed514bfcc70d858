"""Hostile images, nearly two hundred, pulled by the real command.

Its words, exit codes, memory and time.

The other files of this folder know each attack from inside; here are the same images as a registry
serves them, and bombs in their full size.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.helpers.build.front import (
    Document,
    Json,
    Layer,
    Layout,
    chunked_layer,
    image,
    index,
    layout,
    make_tar,
    sha256,
    zstd_layer,
)
from tests.helpers.build.stargz import stargz_layer
from tests.helpers.harness.forked import Forks, Run
from tests.helpers.harness.hostile import BAD_DIGESTS, _warm_store, sets, victim, victim_tar
from tests.helpers.servers.registry import Registry
from tests.hostile import test_annotations as marks
from tests.hostile import test_documents as documents
from tests.hostile import test_entries as entries
from tests.hostile import test_payload as payload
from tests.hostile import test_tarsplit as tarsplit
from tests.hostile import test_toc as toc

MiB = 1 << 20
MOST_BYTES, MOST_SECONDS = 256 * MiB, 10.0
OK, INTEGRITY, MALFORMED = 0, 6, 7
MOST_OF_A_KIND = 12

BOTH = (("--lean",), ("warm", "--exact"))
Make = Callable[[], Document | Layout]


@dataclass(frozen=True)
class Family:
    """Images of one kind.

    `codes`: with which a pull in parts may end; where nothing has to be believed the image may come
    all the same. `ways`: options; `warm` is a store that has an older version.
    """

    images: dict[str, Make]
    codes: set[int]
    ways: tuple[tuple[str, ...], ...] = (("--lean",),)


def some(edits: dict[str, Any]) -> dict[str, Any]:
    """A dozen of them, from the first to the last.

    All are pulled by the other files, at a tenth of the cost.
    """
    step = max(1, len(edits) // MOST_OF_A_KIND)
    return dict(list(edits.items())[::step][:MOST_OF_A_KIND])


def of(
    edits: dict[str, Any], hook: str, pick: Callable[[Any], Any] = lambda edit: edit
) -> dict[str, Make]:
    """A victim for each edit."""

    def make(edit: Any) -> Make:
        return lambda: image([victim(**{hook: pick(edit)})])

    return {name: make(edit) for name, edit in some(edits).items()}


def manifests(edits: dict[str, Any]) -> dict[str, Make]:
    def make(edit: Any) -> Make:
        return lambda: image([victim()], edit_manifest=edit)

    return {name: make(edit) for name, edit in some(edits).items()}


def configs(edits: dict[str, Any]) -> dict[str, Make]:
    def make(edit: Any) -> Make:
        return lambda: image([victim()], edit_config=edit)

    return {name: make(edit) for name, edit in some(edits).items()}


def raw(**texts: bytes) -> dict[str, Make]:
    """Documents that are whatever they are."""

    def make(text: bytes) -> Make:
        made = layout({"t": image([victim()])})
        made.manifests[sha256(text)] = ("application/vnd.oci.image.manifest.v1+json", text)
        made.tags["t"] = sha256(text)
        return lambda: made

    return {name: make(text) for name, text in texts.items()}


# ── bombs: each layer within the limits, all together beyond ──


def entries_text(count: int, name: str) -> Callable[[bytes], bytes]:
    """So many directories, none of which is in the tar."""

    def edit(_: bytes) -> bytes:
        each = b",".join(
            b'{"type":"dir","name":"%s/%d"}' % (name.encode(), number) for number in range(count)
        )
        return b'{"version":1,"entries":[' + each + b"]}"

    return edit


def padded(size: int) -> Callable[[bytes], bytes]:
    return lambda text: text[:-1] + b" " * size + b"}"


@cache
def zeros(size: int) -> str:
    return sha256(bytes(size))


def with_hole(number: int, size: int) -> Layer:
    """A file of which nearly all is zeros, says the table."""
    edit = sets("var/hole", 1, chunkSize=size, chunkDigest=zeros(size))

    def enlarge(found: Json) -> None:
        edit(found)
        sets("var/hole", size=1900 + size)(found)
        sets("var/hole", 2, chunkOffset=1000 + size)(found)
        sets("var/empty", name=f"var/empty{number}")(found)

    return victim(edit_toc=enlarge)


def members_of(size: int, count: int) -> Layer:
    """So many gzip members of zeros."""
    return Layer(
        gzip.compress(bytes(size)) * count, b"", "application/vnd.oci.image.layer.v1.tar+gzip"
    )


def frames_of(size: int, count: int) -> Layer:
    return Layer(
        zstandard.compress(bytes(size)) * count, b"", "application/vnd.oci.image.layer.v1.tar+zstd"
    )


def segments(total: int) -> Layer:
    """A tar-split that decodes to so much, out of little."""
    line = b'{"type":2,"payload":"' + b"A" * (1 << 20) + b'"}\n'
    return victim(edit_tar_split_json=lambda text: text + line * (total // len(line)))


def deep(levels: int) -> Document:
    made: Document = image([victim()])
    for _ in range(levels):
        made = index([made])
    return made


BOMBS: dict[str, Make] = {
    "nine tables of 48,000 entries": lambda: image(
        [victim(edit_toc_json=entries_text(48_000, f"d{layer}")) for layer in range(9)]
    ),
    "ten tables of 12 MiB of blanks": lambda: image(
        [victim(edit_toc_json=padded(12 * MiB), level=layer + 1) for layer in range(10)]
    ),
    "a table of 140 MiB of blanks": lambda: image([victim(edit_toc_json=padded(140 * MiB))]),
    "a table that is all one text": lambda: image(
        [victim(edit_toc_json=lambda text: text[:-1] + b',"x":"' + b"x" * (90 * MiB) + b'"}')]
    ),
    "a table of brackets": lambda: image(
        [
            victim(
                edit_toc_json=lambda text: (
                    text[:-1] + b',"x":' + b"[" * (4 * MiB) + b"]" * (4 * MiB) + b"}"
                )
            )
        ]
    ),
    "a table of a million empty entries": lambda: image(
        [victim(edit_toc_json=lambda _: b'{"version":1,"entries":[' + b"{}," * 1_000_000 + b"{}]}")]
    ),
    "a table of a million numbers": lambda: image(
        [victim(edit_toc_json=lambda _: b'{"version":1,"entries":[' + b"1," * 1_000_000 + b"1]}")]
    ),
    "an entry with three hundred thousand attributes": lambda: image(
        [
            victim(
                edit_toc=sets("bin/app", xattrs={f"user.{number}": "" for number in range(300_000)})
            )
        ]
    ),
    "six layers with holes of 200 MiB": lambda: image(
        [with_hole(number, 200 * MiB) for number in range(6)]
    ),
    "a tar-split of 400 MiB": lambda: image([segments(400 * MiB)]),
    "a hundred layers": lambda: image(
        [chunked_layer(make_tar({f"{number}": b"%d" % number})) for number in range(100)]
    ),
    "three hundred layers of nothing": lambda: image(
        [zstd_layer(b"%d" % number) for number in range(300)]
    ),
    "gzip of 512 MiB": lambda: image([members_of(64 * MiB, 8)]),
    "zstd of 3 GiB": lambda: image([frames_of(256 * MiB, 12)]),
    "an eStargz table of 100 MiB": lambda: image(
        [
            stargz_layer(
                victim_tar(), edit_toc_json=lambda text: text[:-1] + b" " * (100 * MiB) + b"}"
            )
        ]
    ),
    "a config of 4 MB of history": lambda: image(
        [victim()],
        edit_config=lambda config: config.update(history=[{"created_by": "x"}] * 180_000),
    ),
    "a config of 4 MB of diff IDs": lambda: image(
        [victim()],
        edit_config=lambda config: config["rootfs"].update(
            diff_ids=["sha256:" + "a" * 64] * 50_000
        ),
    ),
    "a manifest of 4 MB of annotations": lambda: image(
        [victim()],
        edit_manifest=lambda found: found.update(annotations={f"{n}": "x" for n in range(280_000)}),
    ),
    "an index of four thousand instances": lambda: index([image([victim()])] * 4000),
    "indexes eight deep": lambda: deep(8),
    "indexes forty deep": lambda: deep(40),
}

FAMILIES = {
    "the frame of a table": Family(of(toc.FRAMES, "edit_toc_frame"), {MALFORMED}, BOTH),
    "the text of a table": Family(of(toc.TEXTS, "edit_toc_json"), {MALFORMED}),
    "tables that are not for us": Family(of(toc.WHOLE, "edit_toc", lambda pair: pair[0]), {OK}),
    "tables that are odd": Family(of(toc.HARMLESS, "edit_toc_json"), {OK}, BOTH),
    "entries": Family(of(entries.REFUSED, "edit_toc"), {MALFORMED}),
    "annotations that say nothing": Family(
        of(marks.LEFT_OUT, "edit_annotations", lambda pair: pair[0]), {OK}
    ),
    "positions": Family(of(marks.IMPOSSIBLE, "edit_annotations"), {MALFORMED}),
    "digests of tables": Family(
        of(BAD_DIGESTS, "edit_annotations", lambda bad: marks.marks(toc_digest=bad)), {MALFORMED}
    ),
    "lines of a tar-split": Family(of(tarsplit.LINES, "edit_tar_split"), {MALFORMED}),
    "the text of a tar-split": Family(of(tarsplit.TEXTS, "edit_tar_split_json"), {MALFORMED}),
    "the frame of a tar-split": Family(of(tarsplit.FRAMES, "edit_tar_split_frame"), {MALFORMED}),
    "content that the table lies about": Family(of(payload.LIES, "edit_toc"), {INTEGRITY}, BOTH),
    "manifests": Family(manifests(documents.BROKEN_MANIFESTS), {MALFORMED}),
    "digests of layers": Family(
        manifests({
            name: lambda found, bad=bad: found["layers"][0].update(digest=bad)
            for name, bad in BAD_DIGESTS.items()
        }),
        {MALFORMED},
    ),
    "diff IDs": Family(
        configs({
            name: lambda found, bad=bad: found["rootfs"].update(diff_ids=[bad])
            for name, bad in BAD_DIGESTS.items()
        } | {
            "none": lambda found: found["rootfs"].update(diff_ids=[]),
            "one more": lambda found: found["rootfs"]["diff_ids"].append("sha256:" + "a" * 64),
            "no rootfs": lambda found: {"os": "linux"},
        }),
        {MALFORMED},
    ),
    "documents": Family(
        raw(
            nothing=b"", braces=b"{}", brackets=b"[]", null=b"null", letters=b"\xff", word=b"html",
            nest=b"[" * 100_000, objects=b'{"a":' * 100_000, half=b'{"schemaVersion":2,"layers":[',
            long=b'{"schemaVersion":2,"x":"' + b"x" * (5 * MiB) + b'"}',
        ),
        {MALFORMED},
    ),
    "bombs": Family(BOMBS, {OK, INTEGRITY, MALFORMED}, (("--lean", "--prove"),)),
}  # fmt: skip


def test_there_are_enough_of_them() -> None:
    assert sum(len(family.images) for family in FAMILIES.values()) >= 160


def put_warm_store(home: Path) -> None:
    for name, data in _warm_store().items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(data)


def served(family: Family) -> Iterator[tuple[str, Document | Layout]]:
    for number, (_, make) in enumerate(family.images.items()):
        yield f"i{number}", make()


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_hostile_images_are_refused_in_a_line_and_cost_little(
    family: Family, tmp_path: Path
) -> None:
    content = Layout()
    for tag, made in served(family):
        one = made if isinstance(made, Layout) else layout({"t": made})
        content.tags[tag] = one.tags["t"]
        content.manifests.update(one.manifests)
        content.blobs.update(one.blobs)
    with Registry(content) as registry:
        runs, names = [], []
        for number, name in enumerate(family.images):
            for way in family.ways:
                home = tmp_path / f"{number}{len(way)}{way[0]}"
                home.mkdir()
                if way[0] == "warm":
                    put_warm_store(home)
                options = [word for word in way if word != "warm"]
                argv = [
                    registry.reference(f"i{number}"),
                    "-q",
                    "-j",
                    "2",
                    "--format",
                    "json",
                    *options,
                ]
                runs.append(Run(argv, str(home)))
                names.append((name, way))
        with Forks() as forks:
            costs = [forks.run(one) for one in runs]
    print(
        f"{len(costs)} pulls, {sum(cost.cpu_seconds for cost in costs):.1f} s of CPU, at most "
        f"{max(cost.peak_bytes for cost in costs) / MiB:.0f} MiB"
    )
    bad = []
    for (name, way), run, cost in zip(names, runs, costs, strict=True):
        allowed = family.codes if way[0] == "--lean" else family.codes | {OK}
        if why := complaint(run, cost.code, allowed):
            bad.append(f"{name} {way}: {why}")
        if cost.peak_bytes > MOST_BYTES or cost.cpu_seconds > MOST_SECONDS:
            bad.append(
                f"{name} {way}: {cost.peak_bytes / MiB:.0f} MiB, {cost.cpu_seconds:.1f} s of CPU"
            )
    assert not bad, "\n".join(bad)


def complaint(run: Run, code: int, allowed: set[int]) -> str:
    """What is wrong with what the command said."""
    said, receipt = (Path(run.home, name).read_text() for name in ("err", "out"))
    if code not in allowed:
        return f"exit {code}: {said[-300:]}"
    lines = said.splitlines()
    if code != OK:
        if (
            len([line for line in lines if line.startswith("zpull: error: ")]) != 1
            or "this is a bug" in said
        ):
            return f"not one error in {said[-300:]!r}"
        if not all(line.isprintable() and len(line) < 700 for line in lines) or len(lines) > 1:
            return f"not one line: {said[-300:]!r}"
    elif not all(one["proved"] for one in json.loads(receipt)["layers"]):
        return "nothing is proved"
    return ""
