"""WWW-Authenticate headers.

What is well formed round-trips, sloppy ones are read as others read them.
"""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.errors import FormatError
from zchunked.sources.auth.challenges import Challenge, parse_challenges

WORDS = st.text("!#$%&'*+.^_`|~-" + string.digits + string.ascii_letters, min_size=1, max_size=12)
VALUES = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"), max_size=30
)
NAMES = WORDS.map(str.lower)
GAPS = st.sampled_from(["", " ", "\t", "  "])


@st.composite
def written(draw: st.DrawFn) -> tuple[str, list[Challenge]]:
    """A header and what it means."""
    challenges = draw(
        st.lists(
            st.builds(Challenge, NAMES, st.dictionaries(NAMES, VALUES, max_size=4)), max_size=4
        )
    )
    texts = []
    for one in challenges:
        scheme = draw(st.sampled_from([one.scheme, one.scheme.upper()]))
        parameters = [
            f"{name}{draw(GAPS)}={draw(GAPS)}" + _value(value, quoted=draw(st.booleans()))
            for name, value in one.parameters.items()
        ]
        comma = f"{draw(GAPS)},{draw(GAPS)}"
        texts.append(f"{scheme} {comma.join(parameters)}" if parameters else scheme)
    return f"{draw(GAPS)},{draw(GAPS)}".join(texts), challenges


def _value(value: str, *, quoted: bool) -> str:
    if (
        value
        and not quoted
        and all(char in "!#$%&'*+.^_`|~-" + string.digits + string.ascii_letters for char in value)
    ):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(written())
def test_what_is_written_is_read(pair: tuple[str, list[Challenge]]) -> None:
    header, challenges = pair
    assert parse_challenges(header) == challenges


@given(st.text(max_size=200) | st.text(' ,="\\abB\t;', max_size=60))
def test_anything_is_read(header: str) -> None:
    assert all(one.scheme == one.scheme.lower() and one.scheme for one in parse_challenges(header))


def test_the_usual_one() -> None:
    header = (
        "Bearer "
        'realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull"'
    )
    assert parse_challenges(header) == [
        Challenge(
            "bearer",
            {
                "realm": "https://auth.docker.io/token",
                "service": "registry.docker.io",
                "scope": "repository:library/x:pull",
            },
        )
    ]


def test_several_ways_in_one_header() -> None:
    found = parse_challenges(
        'Negotiate, NTLM abc==, Bearer realm="a,\\"b" ,, scope="x y", Basic realm=r'
    )
    assert [one.scheme for one in found] == ["negotiate", "ntlm", "bearer", "basic"]
    assert found[2].parameters == {"realm": 'a,"b', "scope": "x y"}


@pytest.mark.parametrize(
    ("header", "meant"),
    [
        ("Basic realm=/", [Challenge("basic", {"realm": "/"})]),
        ("Basic realm=Some Repository Manager",
         [Challenge("basic", {"realm": "Some Repository Manager"})]),
        ('Basic realm="open', [Challenge("basic", {"realm": "open"})]),
        ('Bearer realm="https://a/t" service="s" scope="x"',
         [Challenge("bearer", {"realm": "https://a/t", "service": "s", "scope": "x"})]),
        ("Bearer realm=https://a/t?b=c,service=s",
         [Challenge("bearer", {"realm": "https://a/t?b=c", "service": "s"})]),
        ("Bearer realm=https://a/t service=s",
         [Challenge("bearer", {"realm": "https://a/t", "service": "s"})]),
        ('Bearer realm="a",error="b",error="c"',
         [Challenge("bearer", {"realm": "a", "error": "b"})]),
        ('Bearer realm="a",scope="b",scope="c"',
         [Challenge("bearer", {"realm": "a", "scope": "b c"})]),
        ('Bearer realm="a"; scope="b"', [Challenge("bearer", {"realm": "a", "scope": "b"})]),
        ("Basic realm=x Bearer realm=y",
         [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y"})]),
        ('Bearer foo bar, Basic realm="x"',
         [Challenge("bearer"), Challenge("basic", {"realm": "x"})]),
        ("=, @, Basic", [Challenge("basic")]),
        ('BEARER Realm = "a"', [Challenge("bearer", {"realm": "a"})]),
        ("", []),
    ],
)  # fmt: skip
def test_sloppy_ones(header: str, meant: list[Challenge]) -> None:
    assert parse_challenges(header) == meant


def test_an_endless_one_is_refused() -> None:
    with pytest.raises(FormatError):
        parse_challenges("Basic " + "x" * 9000)
