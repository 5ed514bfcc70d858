"""Chaos: whatever goes wrong and whoever is killed, the image ends up right.

If not at once, the next clean run makes it so.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.harness.rough import (
    assert_right,
    balanced,
    kill_after,
    run,
    started,
    verified,
    versions,
)
from tests.helpers.servers.accounts import Kind
from tests.helpers.servers.faults import (
    Fault,
    Rule,
    cut,
    cut_chunked,
    empty,
    extra,
    fail,
    fail_as_ghcr,
    flip,
    ignore_range,
    missing,
    no_content_range,
    on,
    refuse,
    replaced,
    reset,
    shift_content_range,
    stall,
    trickle,
    wrong_total,
)
from tests.helpers.servers.registry import Registry

EXAMPLES = 15 if os.environ.get("CI") else 8
KINDS: list[Kind] = ["token", "manifest", "config", "toc", "blob", "redirect"]
SIZES = st.integers(0, 30_000)
ORDINALS: list[tuple[int, ...]] = [(), (1,), (2,), (2, 4, 6, 8)]

FAULTS: st.SearchStrategy[Fault] = st.one_of(
    st.builds(reset, after=SIZES),
    st.builds(cut, after=SIZES),
    st.builds(cut_chunked, after=SIZES),
    st.builds(missing, SIZES),
    st.builds(extra, SIZES),
    st.builds(flip, SIZES),
    st.builds(fail, st.sampled_from([408, 425, 429, 500, 502, 503, 504])),
    st.builds(fail, st.just(429), retry_after=st.sampled_from([0.1, 0.3, "nonsense"])),
    st.builds(stall, st.just(60.0), after=SIZES),
    st.builds(trickle, st.integers(500, 5000), st.just(0.001)),
    st.sampled_from(
        [refuse(), refuse(how="rst"), empty(), fail_as_ghcr(), shift_content_range(), wrong_total()]
    ),
    st.sampled_from([no_content_range(), ignore_range(), replaced(b"<html>no</html>")]),
)


@st.composite
def rules(draw: st.DrawFn) -> list[Rule]:
    found = []
    for _ in range(draw(st.integers(0, 4))):
        kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
        found.append(
            on(
                kinds,
                draw(FAULTS),
                times=draw(st.integers(1, 4)),
                nth=draw(st.sampled_from(ORDINALS)),
                after_bytes=draw(st.sampled_from([0, 0, 1000, 200_000])),
            )
        )
    return found


@dataclass(frozen=True)
class Run:
    """One run of the command: which tag, and when it is stopped, by what."""

    tag: str
    stop_after: int | None
    number: int


RUNS = st.lists(
    st.builds(
        Run,
        st.sampled_from(["v1", "v2", "v2"]),
        st.one_of(st.none(), st.integers(0, 500_000)),
        st.sampled_from([signal.SIGKILL, signal.SIGKILL, signal.SIGINT]),
    ),
    min_size=1,
    max_size=3,
)
WANTED = {0, 5, 6, 7, 130, -signal.SIGKILL, -signal.SIGINT}
"""6 and 7: what is damaged twice running, by chance here, is no longer the network's fault."""


def run_once(one: Run, home: Path, registry: Registry) -> int:
    options = ("--patience", "4", "--stall-timeout", "0.4")
    with started(home, registry.reference(one.tag), *options) as process:
        if one.stop_after is not None:
            kill_after(process, registry, one.stop_after, one.number)
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            raise AssertionError("it neither finished nor gave up") from None
    # pressed before Python was up
    assert "Traceback" not in err or process.returncode == -signal.SIGINT, err
    if out:
        balanced(json.loads(out))
    return process.returncode


@settings(max_examples=EXAMPLES)
@given(rules(), RUNS, st.integers(0, 99), st.booleans(), st.sampled_from(["206", "400", "200"]))
def test_chaos(faults: list[Rule], runs: list[Run], seed: int, redirect: bool, multi: str) -> None:
    with TemporaryDirectory() as folder:
        home = Path(folder)
        with Registry(
            versions(),
            auth="bearer",
            redirect=redirect,
            faults=faults,
            seed=seed,
            rate=3_000_000,
            multi_range=multi,  # type: ignore[arg-type]
        ) as registry:
            for one in runs:
                code = run_once(one, home, registry)
                assert code in WANTED
                if code == 0:
                    assert_right(home, registry, one.tag)
        with Registry(versions(), auth="bearer", redirect=redirect) as registry:
            for tag in {one.tag for one in runs}:
                run(home, registry, tag, "--patience", "4")
                assert_right(home, registry, tag)
            assert registry.accounts.sent_twice() == 0
        assert verified(home).damaged == []
