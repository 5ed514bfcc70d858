"""The library as a stranger's program uses it.

Documented, typed, quick to import, and every example runs.
"""

from __future__ import annotations

import doctest
import inspect
import os
import re
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import zchunked
from tests.helpers.build.golden import Golden
from tests.helpers.harness.command import environment
from tests.helpers.servers.registry import Registry
from zchunked import errors, events, results
from zchunked.receipt import Receipt

DEMO = Golden("demo", "demo-v1").layout
DOCS = Path(__file__).parents[1] / "docs/library.md"
PROGRAMS = re.findall(
    r"## ([^\n]+)\n+```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL
)
CALLS = [
    name
    for name, _ in inspect.getmembers(zchunked.Client, inspect.isfunction)
    if not name.startswith("_")
]


@pytest.fixture(autouse=True)
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder in which examples run: a layout to pull from."""
    tmp_path.joinpath("demo").symlink_to(DEMO)
    monkeypatch.chdir(tmp_path)


def examples_of(name: str, thing: object) -> list[doctest.DocTest]:
    return [
        test for test in doctest.DocTestFinder(recurse=False).find(thing, name) if test.examples
    ]


PUBLIC = [(name, getattr(zchunked, name)) for name in zchunked.__all__]
PUBLIC += [(f"Client.{name}", getattr(zchunked.Client, name)) for name in CALLS if name != "close"]


@pytest.mark.parametrize(("name", "thing"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_every_public_name_has_an_example_that_runs(name: str, thing: object) -> None:
    found = examples_of(name, thing)
    assert found, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in found:
        assert runner.run(test).failed == 0


@pytest.mark.parametrize("name", [name for name in CALLS if name != "close"])
def test_every_call_says_what_it_takes_returns_and_raises(name: str) -> None:
    text = inspect.getdoc(getattr(zchunked.Client, name)) or ""
    takes = [
        one for one in inspect.signature(getattr(zchunked.Client, name)).parameters if one != "self"
    ]
    assert "Raises:" in text or "raises as" in text
    for parameter in takes if "Args:" in text else []:
        assert f"    {parameter}: " in text


@pytest.mark.parametrize(("title", "program"), PROGRAMS, ids=[title for title, _ in PROGRAMS])
def test_the_programs_of_the_documentation_run(title: str, program: str, tmp_path: Path) -> None:
    with Registry(DEMO) as registry:
        images = [registry.reference(tag) for tag in ("demo-v1", "demo-v2", "plain-gzip", "absent")]
        code = f"IMAGE, IMAGES = {images[0]!r}, {images!r}\n{program}"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout or title == "Export"
    if title == "Many images at once":
        assert "failed with exit code 3" in done.stdout


def test_the_stub_names_what_the_package_has() -> None:
    stub = Path(zchunked.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    assert set(re.findall(r" as (\w+)$", stub, re.MULTILINE)) == set(zchunked.__all__)
    assert set(zchunked.__all__) <= set(dir(zchunked))
    with pytest.raises(AttributeError):
        _ = zchunked.nothing  # type: ignore[attr-defined]


def test_the_function_stays_a_function_when_the_folder_of_its_name_is_loaded() -> None:
    zchunked.pull("oci:demo:demo-v1", store="store")
    assert "zchunked.pull.pull" in sys.modules
    assert callable(zchunked.pull)
    assert not inspect.ismodule(zchunked.pull)


def test_an_import_loads_nothing_that_pulls(tmp_path: Path) -> None:
    code = "import sys, zchunked\nzchunked.Options, zchunked.Client\nprint(*sys.modules)"
    # Coverage would start in the new process too, and load what it needs.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "zchunked" in loaded
    assert (
        not {"requests", "urllib3", "zstandard", "sqlite3", "tqdm", "tenacity", "http", "ssl"}
        & loaded
    )


def test_events_come_on_the_callers_thread_and_the_receipt_agrees_with_the_server() -> None:
    seen: list[events.Event] = []
    with Registry(DEMO) as registry, zchunked.Client("store", on_event=seen.append) as client:
        done = client.pull(registry.reference("demo-v1"), to="oci:out")
        assert done.receipt.bytes.fetched == registry.accounts.body_bytes
        assert client.images()[0].manifest_digest == done.manifest_digest
        assert [one.to for one in done.exports] == ["oci:out"]
    assert events.Pulled(done.manifest_digest) in seen
    assert {events.Planned, events.Arrived, events.Requested} <= {type(event) for event in seen}


def test_an_error_carries_its_receipt_and_never_ends_the_process() -> None:
    options = zchunked.Options(patience=zchunked.Patience(0))
    with (
        Registry(DEMO, auth="basic") as registry,
        zchunked.Client("store", options=options) as client,
    ):
        with pytest.raises(errors.AccessDeniedError) as denied:
            client.pull(registry.reference("demo-v1"))
        assert isinstance(denied.value.receipt, Receipt)
        assert denied.value.receipt.requests > 0
    for wrong in ("host/Upper", "http://x", ""):
        with pytest.raises(errors.UsageError):
            zchunked.pull(wrong, store="store")
    with pytest.raises(errors.UsageError, match="invalid platform"):
        zchunked.pull("oci:demo:demo-v1", store="store", platform="amd64")
    with pytest.raises(errors.UsageError):
        zchunked.Client("store").export("oci:demo:demo-v1", [])


def test_objects_and_places() -> None:
    with Registry(DEMO) as registry, zchunked.Client("store") as client:
        image = registry.reference("demo-v1")
        blobs = client.locate(image)
        assert all(blob.url.startswith("http://") and blob.size for blob in blobs)
        layer = client.fetch(image, blobs[1].digest)
        assert isinstance(layer, results.FetchedObject)
        assert len(layer.read()) == layer.size == blobs[1].size
        published = client.publish(image, "published:v9")
        assert published.reference == "oci:published:v9"
        assert published.sent.blobs == 4
        assert client.verify().damaged == []
    assert (
        zchunked.pull("oci:published:v9", store="other").manifest_digest
        == published.manifest_digest
    )


OUTSIDE = """
import zchunked
from zchunked import events


def show(event: events.Event) -> None:
    if isinstance(event, events.Arrived):
        print(event.bytes)


options = zchunked.Options(jobs=2, patience=zchunked.Patience(5))
client = zchunked.Client("store", options=options, connection=zchunked.Connection(), on_event=show)
digest: str = client.pull("oci:demo:demo-v1", to=["oci:out"]).manifest_digest
client.check_target("oci:chunked")
zchunked.write_file("manifest.json", client.fetch("oci:demo:demo-v1").pieces())
freed: int = client.gc(zchunked.GcOptions(max_bytes=1)).bytes
settings = zchunked.ServeSettings(listen="0")
client.serve(settings, access=lambda one: print(one.status), log=print)
told: str = zchunked.config_for("podman", settings)
is_piped: bool = zchunked.writes_to_stdout("oci:out")
size: int = zchunked.plan("oci:demo:demo-v1", store="store").estimate.bytes
print(
    zchunked.pull("oci:demo:demo-v1", store="store", on_event=show).receipt.bytes.fetched,
    digest,
    size,
)
"""


def test_a_program_outside_the_tree_type_checks_against_the_wheel(tmp_path: Path) -> None:
    if find_spec("hatchling") is None or find_spec("build") is None:
        pytest.skip("no hatchling here to build a wheel with")
    root = DOCS.parents[1]
    argv = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path / "dist"),
        str(root),
    ]
    subprocess.run(argv, check=True, capture_output=True)
    (wheel,) = tmp_path.joinpath("dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        assert {"zchunked/py.typed", "zchunked/__init__.pyi"} <= {*packed.namelist()}
        packed.extractall(tmp_path / "site")
    tmp_path.joinpath("outside.py").write_text(OUTSIDE)
    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file=",
            "--cache-dir=cache",
            "outside.py",
        ],
        env=environment(tmp_path, {"MYPYPATH": str(tmp_path / "site")}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Success" in checked.stdout, checked.stdout
    assert checked.returncode == 0
