"""The pure rooms of the server: names, policy, ranges, links, texts for engines."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.cli.words.options import ENGINES
from zchunked.download.retries.karma import SharedKarma
from zchunked.download.retries.retry import Chameleon
from zchunked.errors import AccessDeniedError, InvalidReferenceError, TransientError, UsageError
from zchunked.options import Patience, ServeSettings
from zchunked.ranges import ByteRange
from zchunked.serve.api.byte_ranges import Multipart, UnsatisfiableError, Wanted, parse_range
from zchunked.serve.api.lists import next_page
from zchunked.serve.api.names import Asked, parse_path, parse_upstreams
from zchunked.serve.api.policy import Allowed, Clients
from zchunked.serve.config_for import config_for
from zchunked.serve.monitoring.page import Facts, FlightRow, HostRow, ImageRow, age, human, render
from zchunked.serve.settings import Settings, is_loopback_address, parse_listen
from zchunked.serve.upstreams.host_karma import HostKarma

UPSTREAMS = {"lab": "lab.example:5000"}
DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("path", "namespace", "name", "what"),
    [
        ("/v2/quay.io/podman/hello/manifests/latest", "", "quay.io/podman/hello", "latest"),
        ("/v2/podman/hello/manifests/latest", "quay.io", "quay.io/podman/hello", "latest"),
        ("/v2/library/alpine/manifests/3", "docker.io", "docker.io/library/alpine", "3"),
        ("/v2/library/alpine/manifests/3", "", "docker.io/library/alpine", "3"),
        ("/v2/alpine/manifests/3", "", "docker.io/library/alpine", "3"),
        ("/v2/docker.io/alpine/manifests/3", "", "docker.io/library/alpine", "3"),
        ("/v2/lab/app/manifests/v1", "", "lab.example:5000/app", "v1"),
        ("/v2/app/manifests/v1", "lab", "lab.example:5000/app", "v1"),
        (f"/v2/quay.io/a/manifests/blobs/{DIGEST}", "", "quay.io/a/manifests", DIGEST),
    ],
)
def test_both_forms_of_names(path: str, namespace: str, name: str, what: str) -> None:
    asked = parse_path(path, namespace, UPSTREAMS)
    assert asked is not None
    assert (asked.name, asked.what) == (name, what)


@pytest.mark.parametrize(
    "path",
    ["/v2/", "/v3/a/manifests/b", "/v2/a/tags/other", "/v2/a/blobs/uploads/x", "/etc/passwd"],
)
def test_other_paths_mean_nothing(path: str) -> None:
    assert parse_path(path, "", {}) is None


@pytest.mark.parametrize(
    "path", ["/v2/quay.io/../x/manifests/v1", "/v2/quay.io/A/manifests/v1", "/v2/" + "a" * 3000]
)
def test_names_that_cannot_be(path: str) -> None:
    with pytest.raises(InvalidReferenceError):
        parse_path(path, "", {})


@given(st.text(max_size=200), st.text(max_size=50))
def test_whatever_the_path_a_value_or_a_refusal(path: str, namespace: str) -> None:
    with suppress(InvalidReferenceError):
        parse_path(path, namespace, UPSTREAMS)


def test_upstreams_are_checked() -> None:
    assert parse_upstreams(["a=b.example:5", "c=[::1]:7"]) == {"a": "b.example:5", "c": "[::1]:7"}
    for text in ("a", "A=b", "a=", "a=b/c", "=b", "a=b:99999999"):
        with pytest.raises(UsageError):
            parse_upstreams([text])
    with pytest.raises(UsageError):
        parse_upstreams(["a=b", "a=c"])


def test_a_prefix_ends_where_a_component_does() -> None:
    allowed = Allowed.of(["ghcr.io/org", "quay.io"])
    allowed.check("ghcr.io", "org/app")
    allowed.check("quay.io", "anything/at/all")
    for host, repository in (
        ("ghcr.io", "organ/app"),
        ("evil.quay.io", "app"),
        ("quay.io:5000", "app"),
        ("ghcr.io", "x"),
    ):
        with pytest.raises(AccessDeniedError):
            allowed.check(host, repository)


def test_tokens() -> None:
    with pytest.raises(UsageError):
        Clients.of("short")
    clients = Clients.of("0123456789abcdef\n")
    assert not clients.admits(None)
    assert not clients.admits("Basic %%%")
    assert not clients.admits("Digest 0123456789abcdef")
    assert clients.admits("bearer 0123456789abcdef")
    assert Clients.of(None).admits(None)


@given(
    st.integers(1, 300),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=1, max_size=5),
)
def test_ranges_are_what_a_server_may_send(size: int, pairs: list[tuple[int, int]]) -> None:
    header = "bytes=" + ",".join(f"{first}-{last}" for first, last in pairs)
    try:
        wanted = parse_range(header, size)
    except UnsatisfiableError:
        assert all(first >= size for first, last in pairs if first <= last)
        return
    if wanted is not None:
        assert all(0 <= span.start < span.end <= size for span in wanted.spans)
        assert {*wanted.spans} <= {
            ByteRange(first, min(last + 1, size)) for first, last in pairs if first < size
        }


def test_a_multipart_is_as_long_as_it_says() -> None:
    parts = Multipart((ByteRange(0, 10), ByteRange(90, 100)), 100, "x")
    body = b"".join(parts.body(lambda span: iter([b"." * span.size])))
    assert len(body) == parts.length
    assert parse_range("bytes=5-", 10) == Wanted((ByteRange(5, 10),), is_to_end=True)


def test_links_lead_back_to_the_server() -> None:
    asked = Asked("tags", "quay.io", "a/b", "list", "a/b")
    link = '</v2/a/b/tags/list?n=2&last=v2&token=secret>; rel="next"'
    assert (
        next_page(link, asked, "ns=quay.io&n=2")
        == '</v2/a/b/tags/list?n=2&last=v2&ns=quay.io>; rel="next"'
    )
    assert next_page(None, asked, "") is None


def test_addresses() -> None:
    assert parse_listen("5055") == ("127.0.0.1", 5055)
    assert parse_listen("[::1]:80") == ("::1", 80)
    for text in ("", "host:", "host:abc", "host:99999"):
        with pytest.raises(UsageError):
            parse_listen(text)
    assert is_loopback_address("127.9.9.9")
    assert not is_loopback_address("0.0.0.0")
    with pytest.raises(UsageError, match="unencrypted"):
        Settings(("0.0.0.0", 1)).check()
    Settings(("0.0.0.0", 1), may_be_plain=True).check()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("is_tls", [False, True])
def test_each_engine_is_told_the_address(engine: str, is_tls: bool) -> None:
    settings = ServeSettings("127.0.0.1:5055", tls_cert=Path("cert.pem") if is_tls else None)
    text = config_for(engine, settings)
    assert "127.0.0.1:5055" in text


@pytest.mark.parametrize("engine", ["podman", "crio", "buildkit"])
def test_engines_that_list_registries_are_told_those_of_this_server(engine: str) -> None:
    settings = ServeSettings(
        allow=("quay.io/podman", "quay.io/org/", "registry.lab.example:5000"),
        upstream=("lab=registry.lab.example:5000",),
    )
    text = config_for(engine, settings)
    assert "docker.io" not in text
    assert '"registry.lab.example:5000"' in text
    assert '"127.0.0.1:5055/lab"' in text
    assert "5055/registry.lab" not in text
    prefixes = ["quay.io"] if engine == "buildkit" else ["quay.io/podman", "quay.io/org"]
    assert text.count('"127.0.0.1:5055/quay.io') == len(prefixes)
    assert all(f'"127.0.0.1:5055/{one}"' in text and f'"{one}"' in text for one in prefixes)


def test_no_other_engine_is_told_anything() -> None:
    with pytest.raises(UsageError, match=r"invalid engine: expected one of docker, .* got 'rkt'"):
        config_for("rkt")
    with pytest.raises(UsageError, match="invalid --listen"):
        config_for("podman", ServeSettings("host:"))


def test_the_page_escapes_what_peers_say() -> None:
    facts = Facts(
        "1",
        7200,
        1,
        2,
        3,
        4,
        [FlightRow("<i>", 0, 0, 5, "<script>")],
        [ImageRow("<script>x</script>", "linux/amd64", "abc", 5)],
        [HostRow("<b>", 1, None, 1)],
        more_images=12,
    )
    page = render(facts)
    assert b"<script" not in page
    assert b"<i>" not in page
    assert b"And 12 more." in page
    assert b"started 2 h ago" in page
    assert b"<b>&lt;b&gt;</b>" in page
    assert (human(999), human(1500), human(10**7), age(59), age(7200)) == (
        "999 B",
        "1.5 kB",
        "10 MB",
        "59 s",
        "2 h",
    )


def test_flights_to_a_host_share_its_karma() -> None:
    now = [0.0]
    hosts = HostKarma(14.0, lambda: now[0])
    with hosts.of("quay.io") as first, hosts.of("quay.io") as second, hosts.of("ghcr.io") as other:
        assert first is second is not other
        now[0] = 15.0  # the endowment is spent
        assert other.lose().is_final
        first.gain(1000)
        assert not second.lose().is_final
    with hosts.of("quay.io") as fresh:
        assert fresh is not first
        assert not fresh.lose().is_final


def test_what_one_pull_brings_another_lives_by() -> None:
    now = [0.0]
    shared = SharedKarma(14.0, lambda: now[0])
    one, two = (
        Chameleon(Patience(14.0), 1, lambda _: None, threading.Event(), clock=lambda: now[0])
        for _ in range(2)
    )
    one.karma = two.karma = shared
    now[0] = 20.0
    one.gain(5000)
    assert two.would_forgive()
    assert not two.forgive(TransientError("reset")).is_final
    now[0] = 40.0
    assert one.forgive(TransientError("reset")).is_final
