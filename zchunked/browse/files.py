"""Read the files of a stored image from its layers' tars, each verified to its last byte."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing

from zchunked.browse.tree import FileEntry, apply_layer, find_file, path_of
from zchunked.errors import FormatError, UnsupportedLayerError
from zchunked.export.images.layers import LayerContent, layers_of
from zchunked.formats.tars.tar_reader import Member, TarReader
from zchunked.store import Store
from zchunked.store.images import StoredImage


def list_files(store: Store, image: StoredImage) -> dict[str, FileEntry]:
    """All entries of the image, by path. DamagedLayerError; FormatError for an unreadable tar."""
    tree: dict[str, FileEntry] = {}
    for number, layer in enumerate(layers_of(store, image)):
        apply_layer(tree, (member for member, _ in _members(layer)), number)
    return tree


def read_file(store: Store, image: StoredImage, path: str) -> bytes:
    """The content of one file, in memory; links are followed. The whole layer is verified first.

    Raises NotFoundError, UsageError for what is no file, and as `list_files`.
    """
    found = find_file(list_files(store, image), path)
    source = found.link if found.kind == "hardlink" else found.path
    content = b""
    for member, payload in _members(layers_of(store, image)[found.layer]):
        if path_of(member.name) == source and member.kind == "reg":
            content = b"".join(payload)  # of several members of one name the last one counts
    return content


def _members(layer: LayerContent) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Each member, with its payload if wanted. Read to its end: only there the tar is verified."""
    with closing(_pieces(layer)) as pieces:
        reader = TarReader(pieces)
        try:
            for member in reader.members():
                payload = reader.payload()
                yield member, payload
                for _ in payload:
                    pass
            for _ in reader.rest():
                pass
        except UnsupportedLayerError as error:
            raise FormatError(
                f"layer {layer.layer.digest}: its files cannot be listed: {error}"
            ) from error


def _pieces(layer: LayerContent) -> Generator[bytes, None, None]:
    for piece in layer.tar():
        yield bytes(piece)
