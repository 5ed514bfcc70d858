"""That instructions are put to the right account, and that what is counted still runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import counted, counts

PROFILE = """
version: 1
ob=/usr/lib/libpython3.11.so.1.0
fl=???
fn=eval
0 100
cob=/usr/lib/x86_64-linux-gnu/libcrypto.so.3
cfn=sha256_block
calls=2 0
0 7000
0 11
ob=/usr/lib/x86_64-linux-gnu/libcrypto.so.3
fn=sha256_block
0 7000
totals: 7111
"""


def test_an_instruction_is_counted_once_where_it_was_spent() -> None:
    python, crypto = "/usr/lib/libpython3.11.so.1.0", "/usr/lib/x86_64-linux-gnu/libcrypto.so.3"
    assert counts.spent(PROFILE.splitlines()) == {python: 111, crypto: 7000}
    assert (counts.family(python), counts.family(crypto)) == ("interpreter", "sha256")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (
            "/venv/lib/python3.11/site-packages/zstandard/backend_c.cpython-311-x86_64-linux-gnu.so",
            "zstd",
        ),
        ("/usr/lib/python3.11/lib-dynload/_sqlite3.cpython-311-x86_64-linux-gnu.so", "SQLite"),
        ("/lib/x86_64-linux-gnu/libc.so.6", "C library"),
        ("/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "C library"),
        ("/lib/x86_64-linux-gnu/libz.so.1", "others"),
        ("???", "others"),
    ],
)
def test_a_library_is_known_by_its_own_name_wherever_it_lies(path: str, name: str) -> None:
    assert counts.family(path) == name


def test_the_table_has_a_row_for_each_stage() -> None:
    stages = [(stage, counts.spent(PROFILE.splitlines())) for stage in counted.STAGES]
    rows = list(counts.table(stages, 10, 12))
    assert [row.split(" | ")[0].strip("| ") for row in rows[4:]] == list(counted.STAGES)


def test_what_is_counted_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts.lay_out(tmp_path, 40)
    counted.main(tmp_path)
    assert '"chunks": ' in capsys.readouterr().out


def test_without_valgrind_it_is_skipped_loudly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert counts.main([]) == 0
    assert "SKIPPED: valgrind is not here" in capsys.readouterr().err
