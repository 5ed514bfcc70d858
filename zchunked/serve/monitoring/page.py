"""The HTML page for people: pulls in progress, images, bytes saved. No scripts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class FlightRow:
    """Bytes; `seconds` since it began; `note` is the last failure that was forgiven, or nothing."""

    name: str
    here: int
    total: int
    seconds: float
    note: str


@dataclass(frozen=True, slots=True)
class ImageRow:
    name: str
    platform: str
    digest: str
    seconds: float
    """Since it was pulled."""


@dataclass(frozen=True, slots=True)
class HostRow:
    """`spans`: how many ranges one request may ask for; None where that is not known."""

    name: str
    fetched: int
    karma: float | None
    spans: int | None


@dataclass(frozen=True, slots=True)
class Facts:
    """Bytes: since the server started, `seconds` ago; `today`: saved since midnight."""

    version: str
    seconds: float
    sent: int
    fetched: int
    today: int
    store: int
    flights: Sequence[FlightRow]
    images: Sequence[ImageRow]
    hosts: Sequence[HostRow]
    more_images: int = 0
    """In the store, and not among `images`."""


_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8882;--good:#2a7f62}
@media(prefers-color-scheme:dark){:root{--good:#4fb98f}}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}
h1{font-size:1.4rem;margin:.2rem 0}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.6rem;margin:1rem 0}
.facts div{background:var(--soft);border-radius:.5rem;padding:.6rem .8rem}
.facts b{display:block;font-size:1.25rem}.facts span{opacity:.75;font-size:.85rem}
.row{border-top:1px solid var(--line);padding:.45rem 0;display:flex;flex-wrap:wrap;gap:.1rem 1rem;
align-items:baseline}.row b{overflow-wrap:anywhere;font-weight:500;flex:1 1 16rem}
.row span{opacity:.8;font-size:.9rem;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
progress{appearance:none;width:100%;height:.5rem;border:0;border-radius:.25rem;overflow:hidden;
background:var(--soft)}::-webkit-progress-bar{background:none}
::-webkit-progress-value{background:var(--good)}::-moz-progress-bar{background:var(--good)}
p{opacity:.75}
"""


def render(facts: Facts) -> bytes:
    """The page as UTF-8."""
    tiles = [
        (human(facts.sent), "sent to engines"),
        (human(facts.fetched), "fetched upstream"),
        (human(facts.today), "saved today"),
        (human(facts.store), "store on disk"),
    ]
    body = [
        (
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
            "content='width=device-width'>"
        ),
        "<meta http-equiv=refresh content=5><title>zpull serve</title>",
        (
            f"<style>{_STYLE}</style><h1>zpull serve</h1><p>version {escape(facts.version)}, "
            f"started {age(facts.seconds)} ago</p>"
        ),
        "<div class=facts>",
        *(f"<div><b>{escape(value)}</b><span>{escape(what)}</span></div>" for value, what in tiles),
        "</div><h2>Pulls in progress</h2>",
        *(map(_flight, facts.flights) if facts.flights else ["<p>None.</p>"]),
        "<h2>Images in the store</h2>",
        *(
            map(_image, facts.images)
            if facts.images
            else ["<p>None yet: pull one through this server.</p>"]
        ),
        *([f"<p>And {facts.more_images} more.</p>"] if facts.more_images else []),
        "<h2>Upstream registries</h2>",
        *(map(_host, facts.hosts) if facts.hosts else ["<p>None has been asked yet.</p>"]),
        "</html>",
    ]
    return "\n".join(body).encode("utf-8", "replace")


def _flight(row: FlightRow) -> str:
    share = f"{human(row.here)} of {human(row.total)}" if row.total else "looking into it"
    note = f"<span>{escape(row.note[:200])}</span>" if row.note else ""
    bar = f"<progress max={row.total or 1} value={min(row.here, row.total)}></progress>"
    return _row(row.name, share, age(row.seconds), more=f"{note}{bar}")


def _image(row: ImageRow) -> str:
    return _row(row.name, escape(row.platform), escape(row.digest), f"{age(row.seconds)} ago")


def _host(row: HostRow) -> str:
    karma = [] if row.karma is None else [f"karma {row.karma:.3g} after its last failure"]
    spans = {None: "ranges not known yet", 0: "no ranges", 1: "one range a request"}.get(
        row.spans, "several ranges a request"
    )
    return _row(row.name, human(row.fetched), spans, *karma)


def _row(name: str, *facts: str, more: str = "") -> str:
    """`facts` and `more` are HTML."""
    shown = "".join(f"<span>{fact}</span>" for fact in facts)
    return f"<div class=row><b>{escape(name)}</b>{shown}{more}</div>"


def human(size: int) -> str:
    """Three digits and a unit."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def age(seconds: float) -> str:
    """The largest unit that fits."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
