"""`make demo`: zpull against a registry on loopback: a first pull, an update, a broken link."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.helpers.build.front import Image, chunked_layer, image, make_tar
from tests.helpers.servers.faults import on, reset
from tests.helpers.servers.registry import Registry

_RATE = 6_000_000  # bytes per second, all connections together: slow enough to see a bar
_FILES = 700


def _files(seed: int) -> dict[str, bytes]:
    """A made-up application: many small text files, some of them large."""
    dice = random.Random(seed)
    words = [
        bytes(dice.choices(b"abcdefghijklmnopqrstuvwxyz", k=dice.randint(2, 9)))
        for _ in range(4000)
    ]

    def text(size: int) -> bytes:
        return b" ".join(dice.choices(words, k=size // 6))

    return {
        f"srv/app/{number % 40:02}/{number}.txt": text(dice.choice([900, 4000, 12_000, 150_000]))
        for number in range(_FILES)
    }


def _update(files: dict[str, bytes]) -> dict[str, bytes]:
    """The next version: a directory renamed, a few files edited, one added."""
    changed = {name.replace("/07/", "/07-renamed/"): data for name, data in files.items()}
    for number, name in enumerate(list(changed)[:: _FILES // 12]):
        middle = len(changed[name]) // 2
        changed[name] = (
            changed[name][:middle] + f" edited {number} ".encode() + changed[name][middle:]
        )
    return changed | {"srv/app/NEWS": b"This version renames a directory.\n"}


def _app(files: dict[str, bytes]) -> Image:
    return image([chunked_layer(make_tar(files))])


def _pull(reference: str, store: Path, *options: str) -> dict[str, dict[str, int]]:
    """Run the command as a user would: the bar is its own, the receipt is kept."""
    argv = [
        sys.executable,
        "-m",
        "zchunked",
        reference,
        "--store",
        str(store),
        "--format",
        "json",
        *options,
    ]
    print("\n$ zpull", reference, *options, flush=True)
    done = subprocess.run(argv, stdout=subprocess.PIPE, env=os.environ, check=True)
    receipt: dict[str, dict[str, int]] = json.loads(done.stdout)
    return receipt


def _tell(receipt: dict[str, dict[str, int]], sent: int) -> None:
    spent = receipt["bytes"]
    print(
        json.dumps({"bytes": spent, "requests": receipt["requests"], "retries": receipt["retries"]})
    )
    verdict = "agrees" if spent["fetched"] == sent else f"DISAGREES with {spent['fetched']}"
    print(f"the registry says it sent {sent:,} bytes: the receipt {verdict}")
    print(f"that is {100 * spent['fetched'] / spent['image']:.1f} % of the image")


def main() -> int:
    before = _files(1)
    versions = {"v1": _app(before), "v2": _app(_update(before))}
    with tempfile.TemporaryDirectory(prefix="zpull-demo-") as folder:
        store = Path(folder) / "store"
        with Registry(versions, rate=_RATE) as registry:
            print("── 1. a first pull: everything comes, each layer is proved against its diff ID")
            _tell(_pull(registry.reference("v1"), store), registry.accounts.body_bytes)
            print("\n── 2. an update: only the chunks that no stored image has")
            sent = registry.accounts.body_bytes
            receipt = _pull(registry.reference("v2"), store, "--to", f"oci:{folder}/out")
            _tell(receipt, registry.accounts.body_bytes - sent)
        print(
            "\n── 3. the same image into an empty store, over a link that breaks every 100 to "
            "200 KB"
        )
        faults = [on("blob", reset(after=(100_000, 200_000)))]
        with Registry(versions, rate=_RATE, faults=faults, seed=7) as registry:
            broken = _pull(registry.reference("v2"), Path(folder) / "other")
            twice = registry.accounts.sent_twice()
            print(
                json.dumps(
                    {
                        "bytes": broken["bytes"],
                        "requests": broken["requests"],
                        "retries": broken["retries"],
                    }
                )
            )
            print(
                f"{broken['retries']} broken connections, and the registry sent {twice:,} bytes "
                "twice"
            )
    print(
        "\nThe three receipts above are what `zpull --format json` prints. Now try: "
        ".venv/bin/zpull --help"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
