"""Images as people have them: thousands of files, and a next version in which little changed.

Standard library only.
"""

import hashlib
import json
import random
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

Files = dict[str, bytes]
_WORDS = (
    "anchor basin beacon buoy cable chart current depth dock draught ebb estuary ferry flood "
    "gauge harbour hull inlet jetty keel knot latitude ledger lock marina mooring neap pilot "
    "pontoon quay reef rope sail sextant shoal sluice sounding spring station surge tide "
    "tonnage vessel wave weir wharf"
).split()
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_REF_NAME = "org.opencontainers.image.ref.name"
# How often a size is drawn, and between which bounds (bytes): most files are small, most bytes are
# in large ones.
_SIZES = (
    (0.600, 100, 2_000),
    (0.300, 2_000, 8_000),
    (0.095, 8_000, 40_000),
    (0.005, 300_000, 900_000),
)


@dataclass(frozen=True, slots=True)
class Truth:
    """What any client must find: computed here from the very bytes, by nobody's client code."""

    config_digest: str
    diff_ids: tuple[str, ...]


def grow(seed: int, count: int, *, under: str = "srv/app", shrunk: int = 1) -> Files:
    """`count` files below `under`, always the same ones for the same arguments.

    They are about 7 kB each on the average, divided by `shrunk`.
    """
    rng = random.Random(f"{seed} {count} {under}")
    lines = [" ".join(rng.choices(_WORDS, k=rng.randint(3, 12))) for _ in range(3_000)]
    files: Files = {}
    for number in range(count):
        folder = f"{under}/{rng.choice(_WORDS)}-{rng.randrange(4)}/{rng.choice(_WORDS)}"
        _, low, high = rng.choices(_SIZES, [weight for weight, _, _ in _SIZES])[0]
        size = rng.randint(low, high) // shrunk
        if rng.random() < 0.75:
            files[f"{folder}/{rng.choice(_WORDS)}_{number}.txt"] = _text(rng, lines, size)
        else:
            files[f"{folder}/{rng.choice(_WORDS)}_{number}.bin"] = rng.randbytes(size)
    return files


def change(files: Files, seed: int, *, share: float = 0.05) -> Files:
    """The next version: `share` of the files edited in the middle, a directory renamed.

    Some new, some gone.
    """
    rng = random.Random(f"change {seed}")
    names = sorted(files)
    renamed = rng.choice(names).rsplit("/", 2)[0]
    large = [name for name in names if len(files[name]) > 200_000]
    edited = {*rng.sample(names, int(len(names) * share)), *large[:3]}
    gone = set(rng.sample(names, len(names) // 200)) - edited
    after: Files = {}
    for name in names:
        target = (
            f"{renamed}-next/{name.removeprefix(renamed + '/')}"
            if name.startswith(renamed + "/")
            else name
        )
        if name not in gone:
            after[target] = _edit(rng, files[name]) if name in edited else files[name]
    return after | grow(
        seed + 1, max(1, len(names) // 200), under=names[0].split("/", 2)[0] + "/new"
    )


def tar(files: Mapping[str, bytes]) -> bytes:
    """Files and their directories, sorted, then exactly two zero blocks.

    Old writers lose what follows those.
    """
    folders = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    out = BytesIO()
    for name in sorted({*folders, *files}):
        info = tarfile.TarInfo(name)
        info.mtime = 1_700_000_000
        if name in folders:
            info.type, info.mode = tarfile.DIRTYPE, 0o755
        else:
            info.size = len(files[name])
        out.write(info.tobuf(tarfile.PAX_FORMAT))
        if name in files:
            out.write(files[name] + bytes(-len(files[name]) % 512))
    out.write(bytes(1024))
    return out.getvalue()


def layout(folder: Path, images: Mapping[str, Sequence[bytes]]) -> None:
    """An OCI layout of plain-tar layers, in a new folder; `images` by tag, lowest layer first."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {
            "mediaType": f"application/vnd.oci.image.{media_type}",
            "digest": f"sha256:{digest}",
            "size": len(data),
        }

    listed = []
    for tag, tars in images.items():
        layers = [put(data, "layer.v1.tar") for data in tars]
        config = put(_config([layer["digest"] for layer in layers]), "config.v1+json")
        document = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": layers}
        manifest = put(json.dumps(document).encode(), "manifest.v1+json")
        listed.append(manifest | {"annotations": {_REF_NAME: tag}})
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": listed}))


def truth(folder: Path, tag: str) -> Truth:
    """What holds for an image of `layout`, whoever compresses and carries it.

    A plain layer's digest is its diff ID.
    """
    listed = json.loads((folder / "index.json").read_text())["manifests"]
    digest = next(entry["digest"] for entry in listed if entry["annotations"][_REF_NAME] == tag)
    manifest = json.loads((folder / "blobs" / digest.replace(":", "/")).read_text())
    return Truth(
        manifest["config"]["digest"], tuple(layer["digest"] for layer in manifest["layers"])
    )


def _config(diff_ids: Sequence[object]) -> bytes:
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    return json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/true"]}, "rootfs": rootfs}
    ).encode()


def _text(rng: random.Random, lines: Sequence[str], size: int) -> bytes:
    numbered = (f"{rng.randrange(100_000)} {line}" for line in rng.choices(lines, k=size // 30 + 1))
    return "\n".join(numbered).encode()[:size]


def _edit(rng: random.Random, data: bytes) -> bytes:
    """Some bytes replaced by a longer run, somewhere in the middle third."""
    at = len(data) // 3 + rng.randrange(len(data) // 3 + 1)
    return data[:at] + rng.randbytes(40) + data[at + 20 :]
