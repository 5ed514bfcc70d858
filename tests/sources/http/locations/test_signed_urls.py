"""Until when a signed URL is good: every cloud says it in its own way."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.sources.http.locations.signed_urls import expiry_of

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SECONDS = int(NOON.timestamp())


def policy(document: object) -> str:
    text = base64.b64encode(json.dumps(document).encode()).decode()
    return text.translate(str.maketrans("+=/", "-_~"))


def until(moment: object) -> dict[str, Any]:
    return {"Statement": [{"Condition": {"DateLessThan": {"AWS:EpochTime": moment}}}]}


GOOD = policy(
    {"Statement": [{"Resource": "*", "Condition": {"DateLessThan": {"AWS:EpochTime": SECONDS}}}]}
)


@pytest.mark.parametrize(
    "query",
    [
        "X-Amz-Date=20261121T114500Z&X-Amz-Expires=900&X-Amz-Signature=abc",
        "X-Goog-Algorithm=GOOG4&X-Goog-Date=20261121T110000Z&X-Goog-Expires=3600",
        "x-oss-date=20261121T115959Z&x-oss-expires=1",
        f"Expires={SECONDS}&Signature=x",
        f"expires={SECONDS}&signature=x&version=3",
        "sv=2024-01-01&se=2026-11-21T12%3A00%3A00Z&sig=x",
        "se=2026-11-21T13%3A00%3A00%2B01%3A00",
        "se=2026-11-21T12%3A00Z",
        f"Policy={GOOD}&Signature=x&Key-Pair-Id=y",
    ],
)
def test_the_time_is_found(query: str) -> None:
    assert expiry_of(f"https://cdn.example/blob?{query}") == NOON


@pytest.mark.parametrize(
    "query",
    [
        "",
        "X-Amz-Date=20261121T114500Z",
        "X-Amz-Date=20261121T114500Z&X-Goog-Expires=9",
        "X-Amz-Date=20269921T114500Z&X-Amz-Expires=9",
        "X-Amz-Date=20261121T114500Z&X-Amz-Expires=-9",
        "Expires=%2B5",
        "Expires=999999999999",
        "se=yesterday",
        "Policy=%%%",
        f"Policy={policy([])}",
        f"Policy={policy(until(True))}",
        f"Policy={policy(until(10**30))}",
    ],
)
def test_what_cannot_be_read_is_no_time(query: str) -> None:
    assert expiry_of(f"https://cdn.example/blob?{query}") is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["X-Amz-Date", "X-Amz-Expires", "Expires", "se", "Policy", "x-ms-date"]
            ),
            st.text(max_size=30),
        )
    ),
    st.text(max_size=20),
)
def test_nothing_breaks_it(pairs: list[tuple[str, str]], rest: str) -> None:
    expiry_of("https://h/b?" + "&".join(f"{key}={value}" for key, value in pairs) + rest)
