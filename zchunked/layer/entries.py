"""The TOC's JSON → typed entries in batches: wrong types and doubled keys end here (format: CRFS-style JSON)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Annotated, NoReturn

import msgspec
from msgspec import UNSET, UnsetType

from zchunked.errors import FormatError, UnsupportedLayerError

_BATCH = 2_000  # entries decoded at a time
_KEY = re.compile(rb'"\s*:')
_HIDDEN = re.compile(rb"\\u00(?:22|3[aA])")  # a quote or a colon that comes out when it is encoded again
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

_Int = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] | UnsetType
_Text = str | UnsetType


class Entry(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """One element of `entries`. Also the fields we have no use for: a wrong type in them is a malformed TOC."""

    type: str
    name: _Text = UNSET
    link_name: _Text = UNSET
    mode: _Int = UNSET
    size: _Int = UNSET
    uid: _Int = UNSET
    gid: _Int = UNSET
    modtime: _Text = UNSET
    accesstime: _Text = UNSET
    changetime: _Text = UNSET
    dev_major: _Int = UNSET
    dev_minor: _Int = UNSET
    xattrs: dict[str, str] | UnsetType | None = UNSET
    digest: _Text = UNSET
    offset: _Int = UNSET
    end_offset: _Int = UNSET
    chunk_size: _Int = UNSET
    chunk_offset: _Int = UNSET
    chunk_digest: _Text = UNSET
    chunk_type: _Text = UNSET


class Document(msgspec.Struct, rename="camel"):
    version: int | UnsetType = UNSET
    tar_split_digest: str | None = None


_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(Document))


def decode_document(data: bytes, count_keys: Callable[[bytes], int]) -> tuple[Document, list[msgspec.Raw], int]:
    """The document without its entries, these, each a view into `data`, and how many keys they must have in all."""
    try:
        values = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        keys = len(values)
        listed = values.pop("entries", msgspec.Raw(b"null"))
        raws = msgspec.json.decode(listed, type=list[msgspec.Raw] | None)
        known = {key: msgspec.json.decode(value) for key, value in values.items() if key in _FIELDS}
        document = msgspec.convert(known, Document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _refuse(data, error)
    # Every key that a value does not account for stands twice.
    inside = sum(count_keys(bytes(value)) for value in values.values())
    return document, raws or [], count_keys(data) - keys - inside


def decode_entries(raws: list[msgspec.Raw], count_keys: Callable[[bytes], int], keys: int) -> Iterator[list[Entry]]:
    """Batches of entries, which have this many keys between them, or FormatError at the end at the latest."""
    decoder = msgspec.json.Decoder(list[Entry])
    for at in range(0, len(raws), _BATCH):
        text = b"[" + b",".join(raws[at : at + _BATCH]) + b"]"
        try:
            batch = decoder.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            _refuse(text, error)
        here = count_keys(text)
        keys -= here
        _refuse_double_keys(text, batch, here)
        yield batch
    if keys:
        raise FormatError("the TOC has a key twice")


def _refuse(data: bytes, error: Exception) -> NoReturn:
    if _SURROGATE.search(data):
        raise UnsupportedLayerError("names in its table of contents are not Unicode") from error
    raise FormatError(f"malformed TOC: {str(error)[:200]}") from error


def key_counter(data: bytes) -> Callable[[bytes], int]:
    """Counts quotes that a colon follows in parts of `data`: the keys, and what looks like one inside of strings."""
    if b" :" in data or any(blank in data for blank in (b"\n", b"\r", b"\t")):
        return lambda text: sum(1 for _ in _KEY.finditer(text))
    return lambda text: text.count(b'":')


def _refuse_double_keys(text: bytes, batch: list[Entry], keys: int) -> None:
    """The decoder lets the last of two equal keys win. Encoding again gives as many keys, unless some were lost."""
    again = msgspec.json.encode(batch)
    if again.count(b'":') == keys and not _HIDDEN.search(text):
        return

    def pairs(items: list[tuple[str, object]]) -> None:
        if len({key for key, _ in items}) != len(items):
            raise FormatError("an entry of the TOC has a key twice")

    try:
        json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"malformed TOC: {str(error)[:200]}") from error
