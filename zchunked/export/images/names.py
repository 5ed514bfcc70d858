"""Names of an exported image: the short one of layouts, and the full one that engines know."""

from __future__ import annotations

from dataclasses import dataclass

from zchunked.errors import InvalidReferenceError
from zchunked.oci.reference import LayoutReference, Reference, parse_image, parse_reference


@dataclass(frozen=True, slots=True)
class Names:
    """`tag`: a layout's `org.opencontainers.image.ref.name`. `full`: `host/repository:tag`.

    None: no such name.
    """

    tag: str | None = None
    full: str | None = None


def names_of(image: str, said: str | None, *, is_whole: bool = False) -> Names:
    """`image`: the name it was pulled under. `given`: the name to use, a tag or a whole reference.

    `is_whole`: it is a reference in any case, as docker archives have them; one without a tag gets
    `latest`.
    """
    pulled = parse_image(image)
    if (
        isinstance(pulled, LayoutReference)
        and pulled.is_engine
        and not pulled.base.startswith("sha256:")
    ):
        pulled = parse_reference(pulled.base)
        image = str(pulled)
    tag = pulled.tag
    if isinstance(pulled, Reference) and tag and not image.partition("@")[0].endswith(f":{tag}"):
        tag = None  # no tag was given
    # A layout may have kept a registry's reference as its tag.
    full = (
        _full(tag)
        if isinstance(pulled, LayoutReference)
        else str(_tagged(pulled, tag))
        if tag
        else None
    )
    if said is None:
        return Names(tag, full)
    if is_whole or "/" in said or ":" in said:
        return Names(said, _full(said, is_whole=is_whole))
    if full is None and isinstance(pulled, Reference):
        full = pulled.name
    base = parse_reference(full) if full else None
    return Names(said, str(_tagged(base, said)) if base else None)


def _full(text: str | None, *, is_whole: bool = False) -> str | None:
    """With host and tag; None for what is only a tag, or no name that an engine takes."""
    if text is None or not (is_whole or "/" in text or ":" in text):
        return None
    try:
        found = parse_reference(text)
    except InvalidReferenceError:
        return None
    return str(_tagged(found, found.tag)) if found.tag else None


def _tagged(reference: Reference, tag: str | None) -> Reference:
    return Reference(reference.host, reference.repository, tag, None)
