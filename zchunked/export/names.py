"""What an exported image is called: the short name of layouts, and the full one by which engines know it."""

from __future__ import annotations

from dataclasses import dataclass

from zchunked.errors import InvalidReferenceError
from zchunked.oci.reference import LayoutReference, Reference, parse_image, parse_reference


@dataclass(frozen=True, slots=True)
class Names:
    """`tag`: a layout's `org.opencontainers.image.ref.name`. `full`: `host/repository:tag`. None: no such name."""

    tag: str | None = None
    full: str | None = None


def names_of(image: str, said: str | None) -> Names:
    """`image`: the name it was pulled under. `said`: what it shall be called, a tag or a whole reference."""
    pulled = parse_image(image)
    tag = pulled.tag if pulled.tag and image.partition("@")[0].endswith(f":{pulled.tag}") else None
    # A layout may have kept a registry's reference as its tag.
    full = _full(tag) if isinstance(pulled, LayoutReference) else str(_tagged(pulled, tag)) if tag else None
    if said is None:
        return Names(tag, full)
    if "/" in said or ":" in said:
        return Names(said, _full(said))
    if full is None and isinstance(pulled, Reference):
        full = pulled.name
    base = parse_reference(full) if full else None
    return Names(said, str(_tagged(base, said)) if base else None)


def _full(text: str | None) -> str | None:
    """With host and tag; None for what is only a tag, or no name that an engine takes."""
    if text is None or not ("/" in text or ":" in text):
        return None
    try:
        found = parse_reference(text)
    except InvalidReferenceError:
        return None
    return str(_tagged(found, found.tag)) if found.tag else None


def _tagged(reference: Reference, tag: str | None) -> Reference:
    return Reference(reference.host, reference.repository, tag, None)
