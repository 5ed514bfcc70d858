"""Decode the TOC's JSON into typed entries, in batches; refuse wrong types and doubled keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, NamedTuple, NoReturn

import msgspec
from msgspec import UNSET, UnsetType

from zchunked.errors import FormatError, UnsupportedLayerError

_BATCH = 2_000  # entries decoded at a time
BATCH_BYTES = 512 << 10  # the same as text, more or less
_HEAD = re.compile(rb'\s*\{\s*"version"\s*:\s*1\s*,\s*"entries"\s*:\s*\[')
_BETWEEN = (b'},{"', b"},\n\t\t{")  # two entries, as containers/storage and as stargz puts them
_KEY = re.compile(rb'"\s*:')
_ESCAPED_COLON = (b"\\u003a", b"\\u003A")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

_Int = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] | UnsetType
_Text = str | UnsetType


class Entry(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """One element of `entries`.

    Also the fields without a use here: a wrong type in them is a malformed TOC. What a tar header
    says comes first, what is said of the payload from `digest` on: `fingerprints` cut there.
    """

    type: str
    name: _Text = UNSET
    link_name: _Text = UNSET
    mode: _Int = UNSET
    size: _Int = UNSET
    uid: _Int = UNSET
    gid: _Int = UNSET
    user_name: _Text = UNSET  # this and the next one: stargz only
    group_name: _Text = UNSET
    modtime: _Text = UNSET
    accesstime: _Text = UNSET
    changetime: _Text = UNSET
    dev_major: _Int = UNSET
    dev_minor: _Int = UNSET
    xattrs: dict[str, str] | UnsetType | None = UNSET
    digest: _Text = UNSET
    offset: _Int = UNSET
    end_offset: _Int = UNSET
    inner_offset: _Int = UNSET  # stargz only
    chunk_size: _Int = UNSET
    chunk_offset: _Int = UNSET
    chunk_digest: _Text = UNSET
    chunk_type: _Text = UNSET


class Batch(NamedTuple):
    """Some entries, and their list encoded again: JSON of one form, whatever the TOC's was."""

    entries: list[Entry]
    text: bytes


def with_names(batch: Batch, users: dict[int, str], groups: dict[int, str]) -> Batch:
    """The entries with names of owner and group: stargz omits a name that its ID had before.

    `users` and `groups`: names by ID, of this batch and those before; both are filled.
    """
    for entry in batch.entries:
        user, group = entry.uid or 0, entry.gid or 0
        if entry.user_name is not UNSET:
            users[user] = entry.user_name
        if entry.group_name is not UNSET:
            groups[group] = entry.group_name
        entry.user_name, entry.group_name = users.get(user, UNSET), groups.get(group, UNSET)
    return Batch(batch.entries, msgspec.json.encode(batch.entries))


class Document(msgspec.Struct, rename="camel"):
    version: int | UnsetType = UNSET
    tar_split_digest: str | None = None


_KNOWN = ("version", "tarSplitDigest")
_MEMBERS, _DOCUMENT = msgspec.json.Decoder(dict[str, msgspec.Raw]), msgspec.json.Decoder(Document)
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw] | None)
_ENTRIES = msgspec.json.Decoder(list[Entry])


class EntryReader:
    """Text of the document, cut anywhere → entries in batches, as it arrives.

    Where the text goes as writers put it, a batch ends between two entries, and what was taken is
    dropped. Text of any other layout, and all from an entry on that does not decode, is kept until
    the end and parsed there, whole.
    """

    def __init__(self, batch_bytes: int = BATCH_BYTES) -> None:
        self._batch_bytes = batch_bytes
        self._head = b""  # all before the first entry, once that is known
        self._held: list[bytes] = []
        self._size = 0
        self._whole: bytearray | None = None  # all of it, where it has to be kept

    def feed(self, text: bytes) -> Batch | None:
        """The next entries; None until enough arrived. FormatError where one has a key twice."""
        if self._whole is not None:
            self._whole += text
            return None
        self._held.append(text)
        self._size += len(text)
        if self._size < self._batch_bytes:
            return None
        text = b"".join(self._held)
        if not self._head and (found := _HEAD.match(text)):
            self._head, text = found[0], text[found.end() :]
        end = max(map(text.rfind, _BETWEEN)) + 1 if self._head else 0
        batch = _batch(text[:end]) if end else None
        if batch:
            text = text[end + 1 :]
        else:
            self._whole = bytearray(self._head + text)
            text = b""
        self._held, self._size = [text], len(text)
        return batch

    def finish(self) -> tuple[Document, list[msgspec.Raw]]:
        """The document without its entries, and the entries that were in no batch.

        Raises FormatError.
        """
        data = self._whole if self._whole is not None else b"".join([self._head, *self._held])
        self._held.clear()
        try:
            values = _MEMBERS.decode(data)
            _refuse_double_names(data, values)
            raws = _ELEMENTS.decode(values.pop("entries", msgspec.Raw(b"null")))
            known = {key: values[key] for key in _KNOWN if key in values}  # others may be long
            return _DOCUMENT.decode(msgspec.json.encode(known)), raws or []
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            _refuse(data, error)


def decode_entries(raws: list[msgspec.Raw]) -> Iterator[Batch]:
    """All entries, in batches. FormatError where one has a wrong type in it, or a key twice."""
    for at in range(0, len(raws), _BATCH):
        text = b"[" + b",".join(raws[at : at + _BATCH]) + b"]"
        try:
            entries = _ENTRIES.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            _refuse(text, error)
        yield _checked(text, entries)


def _batch(text: bytes) -> Batch | None:
    """The entries of a part of the list; None where that is no whole number of them."""
    text = b"[" + text + b"]"
    try:
        entries = _ENTRIES.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return _checked(text, entries)


def _refuse(data: bytes | bytearray, error: Exception) -> NoReturn:
    if _SURROGATE.search(data):
        raise UnsupportedLayerError("names in its table of contents are not Unicode") from error
    raise FormatError(f"malformed TOC: {str(error)[:200]}") from error


def _refuse_double_names(data: bytes | bytearray, values: dict[str, msgspec.Raw]) -> None:
    """Refuse doubled keys of the document: the decoder keeps the last, so text is missing."""
    plain = (
        2
        + sum(len(key) + len('"":,') + len(memoryview(value)) for key, value in values.items())
        - bool(values)
    )
    size = len(data.rstrip()) if data[-1:].isspace() else len(data)
    if size != plain and _keys(data) != len(values) + sum(
        _keys(value) for value in values.values()
    ):
        raise FormatError("the TOC has a key twice")


def _keys(text: bytes | bytearray | msgspec.Raw) -> int:
    """Count keys, and strings that look like keys: quotes that a colon follows."""
    return sum(1 for _ in _KEY.finditer(memoryview(text)))


def _checked(text: bytes, entries: list[Entry]) -> Batch:
    """Refuse doubled keys of entries: the decoder keeps the last, so fewer colons come out than in.

    Colons in strings are as many, but for those that were escaped. Of unknown keys there are fewer
    as well.
    """
    again = msgspec.json.encode(entries)
    if again != text and (
        again.count(b":") != text.count(b":") or any(map(text.__contains__, _ESCAPED_COLON))
    ):
        _refuse_double_keys(text)
    return Batch(entries, again)


def _refuse_double_keys(text: bytes) -> None:

    def pairs(items: list[tuple[str, object]]) -> None:
        if len({key for key, _ in items}) != len(items):
            raise FormatError("an entry of the TOC has a key twice")

    try:
        json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"malformed TOC: {str(error)[:200]}") from error
