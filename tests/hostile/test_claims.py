"""A stranger's claim about blobs that are here already fails the stranger's image alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.front import Image, Json, gzip_layer, image
from tests.helpers.harness.hostile import Bench, bench, honest, noise, sets, victim
from zchunked.errors import ZPullError
from zchunked.maintenance.verify import verify
from zchunked.oci.digest import Digest, digest_of
from zchunked.store import Store

Edit = Callable[[Json], None]


def plain() -> Image:
    return image([gzip_layer(noise(40_000, 9))])


def config_is(blob: Json, **values: Any) -> Edit:
    def edit(manifest: Json) -> None:
        manifest["config"] |= {"digest": blob["digest"], "size": blob["size"]} | values

    return edit


def layer_is(blob: Json, **values: Any) -> Edit:
    def edit(manifest: Json) -> None:
        manifest["layers"][0] |= {"digest": blob["digest"], "size": blob["size"]} | values

    return edit


def moved(by: int, what: str = "") -> Edit:
    """The same layer, and annotations that say another place or size."""

    def edit(manifest: Json) -> None:
        annotations = manifest["layers"][0].get("annotations", {})
        for key, value in annotations.items():
            if key.endswith("position") and what in key:
                first, _, rest = value.partition(":")
                annotations[key] = f"{int(first) + by}:{rest}"

    return edit


def other_digests(manifest: Json) -> None:
    annotations = manifest["layers"][0].get("annotations", {})
    for key in annotations:
        if key.endswith(("checksum", "digest")):
            annotations[key] = "sha256:" + "1" * 64


def lies_about(target: Image) -> dict[str, Image]:
    layer: Json = {"digest": target.layers[0].digest, "size": target.layers[0].size}
    config: Json = {"digest": digest_of(target.config), "size": len(target.config)}
    manifest: Json = {"digest": target.digest, "size": len(target.manifest)}
    found: dict[str, Image] = {}
    for name, blob in (("layer", layer), ("config", config), ("manifest", manifest)):
        for size in (
            1,
            100,
            blob["size"] - 1,
            blob["size"],
            blob["size"] + 1,
            blob["size"] + 5000,
            3 << 20,
            600 << 20,
        ):
            found[f"its {name} as a config of {size}"] = image(
                [victim()], edit_manifest=config_is(blob, size=size)
            )
            found[f"its {name} as a layer of {size}"] = image(
                [victim()], edit_manifest=layer_is(blob, size=size)
            )
            bare = layer_is(blob, size=size, annotations={})
            found[f"its {name} as a bare layer of {size}"] = image([victim()], edit_manifest=bare)
    for by in (-5000, -1, 1, 17, 5000):
        found[f"annotations moved by {by}"] = image(target.layers, edit_manifest=moved(by))
    found["other digests in the annotations"] = image(target.layers, edit_manifest=other_digests)
    found["another diff ID"] = image(target.layers, edit_config=_other_diff_id)
    return found


def _other_diff_id(config: Json) -> None:
    config["rootfs"]["diff_ids"][0] = "sha256:" + "2" * 64


def state(store: Store) -> list[Any]:
    blobs = [digest for digest, _, _ in store.blobs()]
    return [
        (blob, store.covered(blob), store.whole_size(blob), store.is_proved(blob)) for blob in blobs
    ]


def unharmed(on: Bench, target: Image, before: list[Any]) -> None:
    after = {row[0]: row for row in state(on.store)}
    for blob, covered, size, is_proved in before:
        _, now, now_size, now_proved = after[blob]
        assert not [
            span
            for span in covered
            if not any(s.start <= span.start and span.end <= s.end for s in now)
        ]
        assert size in (None, now_size)
        assert now_proved or not is_proved
    on.reopen()
    again = on.pull(target)
    on.is_right(again, target)
    assert again.receipt.bytes.fetched == again.receipt.bytes.metadata
    assert again.receipt.bytes.needed == 0


TARGETS = {"zstd:chunked": honest, "gzip": plain}


@pytest.mark.parametrize("start", ["metered", "warm", "cold"])
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_lies_about_the_blobs_of_a_pulled_image(
    tmp_path: Path, start: str, target: Callable[[], Image]
) -> None:
    with bench(tmp_path, start) as on:
        on.pull(target())
        for name, lie in lies_about(target()).items():
            before = state(on.store)
            with suppress(ZPullError):
                on.pull(lie, f"evil.example/{name.replace(' ', '-')}:t")
            unharmed(on, target(), before)
        assert not verify(on.store).damaged


@pytest.mark.parametrize("start", ["metered", "cold"])
def test_lies_before_the_image_is_pulled(tmp_path: Path, start: str) -> None:
    """What a manifest said of a blob's size is forgotten when its digest says another one."""
    target = plain() if start == "cold" else honest()
    with bench(tmp_path, start) as on:
        for name, lie in lies_about(target).items():
            with suppress(ZPullError):
                on.pull(lie, f"evil.example/{name.replace(' ', '-')}:t")
        on.is_right(on.pull(target), target)
        on.reopen()
        assert not verify(on.store).damaged
        again = on.pull(target)
        assert again.receipt.bytes.needed == 0


def test_a_toc_that_lies_about_sizes_convicts_no_chunk(tmp_path: Path) -> None:
    """An honest chunk by its digest, with another size: it is the table that is wrong."""
    lie = image([victim(edit_toc=sets("etc/app.conf", size=7))])
    with bench(tmp_path, "metered") as on:
        on.pull(honest())
        before = state(on.store)
        with suppress(ZPullError):
            on.pull(lie, "evil.example/app:t")
        unharmed(on, honest(), before)


def test_a_small_object_is_never_read_whole_if_it_is_not_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path / "store") as store:
        data = noise(5 << 20, 4)
        blob = digest_of(data)
        writer = store.writer(blob, len(data))
        writer.write(0, data)
        writer.close()
        monkeypatch.setattr(store, "read", None)
        assert store.document(blob) is None
        assert store.get(blob, len(data)) is None
        assert store.covers(blob, store.covered(blob)[0])


def test_wrong_bytes_under_a_digest_give_way_to_the_right_ones(tmp_path: Path) -> None:
    data = b'{"schemaVersion": 2}'
    with Store(tmp_path / "store") as store:
        writer = store.writer(digest_of(data), 600 << 20)
        writer.write(0, b"{{")
        writer.write(10, data[10:15])
        writer.write(300, b"more than there is")
        writer.close()
        store.put(data)
        assert store.document(digest_of(data)) == data
        assert store.whole_size(digest_of(data)) == len(data)
        assert not verify(store).damaged
    with Store(tmp_path / "store") as store:
        assert store.document(Digest(digest_of(data))) == data
