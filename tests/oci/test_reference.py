"""The reference grammar: what people type, and what it never does with anything else."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from zchunked.errors import InvalidReferenceError
from zchunked.oci.digest import Digest
from zchunked.oci.reference import (
    DOCKER_HUB,
    LayoutReference,
    Reference,
    is_loopback,
    parse_image,
    parse_reference,
    parse_source,
)

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


def matching(form: str) -> st.SearchStrategy[str]:
    return st.from_regex(form, fullmatch=True, alphabet=st.characters(max_codepoint=126))


LABEL = "[a-zA-Z0-9]([a-zA-Z0-9-]{0,5}[a-zA-Z0-9])?"
COMPONENT = "[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}"
DOMAINS = matching(rf"{LABEL}(\.{LABEL}){{1,3}}(:[1-9][0-9]{{0,3}})?")
HOSTS = st.one_of(
    DOMAINS,
    matching(rf"{LABEL}:[1-9][0-9]{{0,3}}"),
    st.sampled_from(
        ["localhost", "localhost:5000", "127.0.0.1:5000", "[::1]", "[::1]:5000", "Registry"]
    ),
).filter(lambda host: host not in (DOCKER_HUB, "index.docker.io"))
REPOSITORIES = matching(rf"{COMPONENT}(/{COMPONENT}){{0,3}}")
TAGS = matching("[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
DIGESTS = st.binary(min_size=32, max_size=32).map(lambda raw: Digest(f"sha256:{raw.hex()}"))


@st.composite
def references(draw: st.DrawFn) -> Reference:
    tag, digest = draw(
        st.one_of(st.tuples(TAGS, st.none() | DIGESTS), st.tuples(st.none() | TAGS, DIGESTS))
    )
    if draw(st.booleans()):
        return Reference(draw(HOSTS), draw(REPOSITORIES), tag, digest)
    path = draw(REPOSITORIES)
    return Reference(DOCKER_HUB, path if "/" in path else f"library/{path}", tag, digest)


@given(references())
def test_a_reference_reads_as_it_was_written(reference: Reference) -> None:
    assume(len(reference.name) <= 255)
    assert parse_reference(str(reference)) == reference
    assert parse_reference(f"docker://{reference}") == reference


@given(st.one_of(st.text(), st.text("aA0.:/@-_[]%~\n\0é\ud800 "), references().map(str).flatmap(
    lambda text: st.builds(
        lambda at, odd: text[:at] + odd + text[at:], st.integers(0, len(text)), st.text(max_size=3)
    ),
)))  # fmt: skip
@example("a" * 5000)
@example("a_" * 3000 + "A")
@example("-/" * 3000)
def test_whatever_the_text_it_is_a_reference_or_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidReferenceError:
        return
    assert parse_reference(str(reference)) == reference
    assert reference.tag or reference.digest
    assert len(reference.name) <= 255
    assert ".." not in reference.repository
    assert not set(str(reference)) & set("\n\0\\%?#é\ud800 ")


@pytest.mark.parametrize(("text", "want"), [
    ("alpine", "docker.io/library/alpine:latest"),
    ("alpine:3.20", "docker.io/library/alpine:3.20"),
    ("docker://alpine", "docker.io/library/alpine:latest"),
    ("grafana/grafana", "docker.io/grafana/grafana:latest"),
    ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
    ("docker.io/library/ls", "docker.io/library/ls:latest"),
    ("localhost", "docker.io/library/localhost:latest"),
    ("localhost/app", "localhost/app:latest"),
    ("localhost:5000/app:1", "localhost:5000/app:1"),
    ("host:5000", "docker.io/library/host:5000"),
    ("[::1]:5000/a/b", "[::1]:5000/a/b:latest"),
    ("ghcr.io/a/b__c-d.e", "ghcr.io/a/b__c-d.e:latest"),
    (f"ghcr.io/a/b@{DIGEST}", f"ghcr.io/a/b@{DIGEST}"),
    (f"ghcr.io/a/b:t@{DIGEST}", f"ghcr.io/a/b:t@{DIGEST}"),
])  # fmt: skip
def test_what_is_missing_is_filled_in_as_the_container_tools_do(text: str, want: str) -> None:
    assert str(parse_reference(text)) == want


@pytest.mark.parametrize("text", [
    "", "docker://", "https://ghcr.io/a", "docker://docker://a", "a:", ":t", "/a", "a/", "a//b",
    "a@", "@", "a b", " a", "a\n",
    "ghcr.io/A", "ghcr.io/a..b", "ghcr.io/../a", "ghcr.io/a___b", "ghcr.io/-a", "ghcr.io/a-",
    "host:0/a", "host:99999/a", "host:/a",
    "user:password@host/a", "-host.io/a", "ghcr.io/a:.t", "ghcr.io/a:" + "t" * 129,
    f"a@{DIGEST.upper()}", f"a@{DIGEST}0",
    f"a@sha512:{HEX}{HEX}", "a@sha256:../../../etc/passwd", f"a@{DIGEST}@{DIGEST}",
    "ghcr.io/" + "a" * 250, "ghcr.io/ａ", "ghcr.io/a:١",
])  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        parse_reference(text)


def test_a_message_stays_one_short_line_and_says_what_to_do() -> None:
    with pytest.raises(InvalidReferenceError, match="must be lower case"):
        parse_reference("ghcr.io/Owner/App")
    with pytest.raises(InvalidReferenceError) as caught:
        parse_reference("x\n" * 5000)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:5000", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:5000"]
)
def test_loopback_is_this_machine(host: str) -> None:
    assert is_loopback(host)
    assert Reference(host, "a", "t", None).is_loopback


@pytest.mark.parametrize(
    "host",
    ["localhost.evil.com", "127.0.0.1.nip.io", "128.0.0.1", "10.0.0.1", "localhostx", "[::2]", ""],
)
def test_what_only_looks_like_loopback_is_not(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(("text", "scheme", "base", "tag"), [
    ("oci:out", "oci", "out", None),
    ("oci:/srv/images/", "oci", "/srv/images", None),
    ("oci:/:v1", "oci", "/", "v1"),
    ("oci:./a/b:v1", "oci", "./a/b", "v1"),
    ("oci:a:docker.io/library/x:1", "oci", "a", "docker.io/library/x:1"),
    ("oci+https://cdn.example/team/app", "oci+https", "cdn.example/team/app", None),
    ("oci+https://cdn.example/team/app:v1", "oci+https", "cdn.example/team/app", "v1"),
    ("oci+http://127.0.0.1:8000", "oci+http", "127.0.0.1:8000", None),
    ("oci+http://127.0.0.1:8000/", "oci+http", "127.0.0.1:8000", None),
    ("oci+http://127.0.0.1:8000/a:v1", "oci+http", "127.0.0.1:8000/a", "v1"),
    ("oci+http://127.0.0.1:8000:v1", "oci+http", "127.0.0.1:8000", "v1"),
    ("oci+http://127.0.0.1:8000:1", "oci+http", "127.0.0.1:8000", "1"),
    ("oci+http://[::1]:8000:v1", "oci+http", "[::1]:8000", "v1"),
    ("oci+http://[::1]", "oci+http", "[::1]", None),
    ("oci+https://cdn.example:v1", "oci+https", "cdn.example", "v1"),
    ("s3://bucket/deep/prefix:v1", "s3", "bucket/deep/prefix", "v1"),
    ("s3://bucket:v1", "s3", "bucket", "v1"),
    ("gs://bucket", "gs", "bucket", None),
    ("az://container/x", "az", "container/x", None),
])  # fmt: skip
@pytest.mark.parametrize("digest", [None, DIGEST])
def test_a_layout_is_named_by_its_scheme(
    text: str, scheme: str, base: str, tag: str | None, digest: str | None
) -> None:
    reference = parse_image(text + (f"@{digest}" if digest else ""))
    assert reference == LayoutReference(scheme, base, tag, digest)  # type: ignore[arg-type]
    assert parse_image(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    ["oci:", "oci::v1", "oci+https://", "oci+http:///x", "s3://", "s3:///x", "gs://:v1", "oci+http://h/../x",
     "oci+http://h/a?b", "s3://b/\x00", f"oci:x@sha256:{'0' * 63}", "ftp://h/x", "oci+ftp://h/x",
     "oci+https://me:secret@h/x", "oci+https://h:0/x", "oci+https://h h/x"],
)  # fmt: skip
def test_no_layout(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        parse_image(text)


def test_what_has_no_scheme_is_in_a_registry() -> None:
    assert parse_image("oci/image:v1") == parse_reference("oci/image:v1")
    assert parse_image("docker://a.b/c") == parse_reference("a.b/c")


def test_a_password_in_a_layouts_reference_is_not_repeated() -> None:
    with pytest.raises(InvalidReferenceError, match="--creds") as caught:
        parse_image("oci+https://me:s3cr3t@host.example/base:v1")
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("docker:app", "docker:app:latest"),
        ("podman:app:v1", "podman:app:v1"),
        ("docker:quay.example:5000/team/app", "docker:quay.example:5000/team/app:latest"),
        ("podman:localhost/app@sha256:" + "a" * 64, "podman:localhost/app@sha256:" + "a" * 64),
        ("docker:" + "a" * 12, "docker:sha256:" + "a" * 12),
        ("docker:" + "b" * 64, "docker:sha256:" + "b" * 64),
    ],
)
def test_images_of_engines_are_read_again_as_they_are_written(text: str, written: str) -> None:
    found = parse_source(text)
    assert isinstance(found, LayoutReference)
    assert found.is_engine
    assert found.is_local
    assert str(found) == written
    assert parse_image(written) == found


@pytest.mark.parametrize(
    "text", ["docker:dind", "docker:dind@sha256:" + "a" * 64, "docker://app", "podman:v4"]
)
def test_what_could_always_be_an_image_of_docker_hub_still_is(text: str) -> None:
    assert isinstance(parse_image(text), Reference)


@pytest.mark.parametrize("text", ["docker:", "podman:-x", "docker:a b"])
def test_what_no_engine_calls_an_image_is_refused(text: str) -> None:
    with pytest.raises(InvalidReferenceError, match="an image that"):
        parse_source(text)
