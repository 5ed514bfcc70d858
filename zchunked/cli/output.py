"""What verbs share: the store they work on and how they print."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO

import msgspec
import platformdirs

from zchunked.errors import ZPullError
from zchunked.exports.files import local_errors, write_whole
from zchunked.receipt import Receipt
from zchunked.store import Store


def store_of(arguments: argparse.Namespace, _environment: Mapping[str, str] | None = None) -> Store:
    """The caller closes it."""
    folder = Path(arguments.store) if arguments.store else Path(platformdirs.user_cache_dir("zpull"))
    return Store(folder)


def print_json(document: object, out: IO[str] | None = None) -> None:
    print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode(), file=out or sys.stdout)


def print_receipt(receipt: Receipt, out: IO[str], failure: ZPullError | None) -> None:
    document = asdict(receipt)
    if failure is not None:
        document["error"] = str(failure)
    print_json(document, out)


def write_digestfile(path: str | None, receipt: Receipt) -> None:
    if path:
        with local_errors(f"cannot write {path}"):
            write_whole(Path(path), [f"{receipt.manifest_digest}\n".encode()])
