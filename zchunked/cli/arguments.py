"""Arguments: the verbs and their options. Each option has a ZPULL_… variable; what is typed wins."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from zchunked import __version__
from zchunked.errors import UsageError

VERBS = ("pull", "export", "images")
_EXIT_CODES = """exit codes:
  0 done                            5 gave up on the network: run again to resume
  1 unexpected                      6 integrity: bytes are not what their digest promised
  2 usage or bad reference          7 malformed or hostile metadata
  3 not found                       8 local trouble: disk full, target not empty
  4 access denied                 130 interrupted: run again to resume"""


def dispatch(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Parse and run. A word that is a verb is a verb; anything else is an image to pull."""
    words = list(argv)
    if not words:
        parser(environment).print_help()
        return 2
    if words[0] not in VERBS and words[0] not in ("-h", "--help", "--version"):
        words.insert(0, "pull")
    arguments = parser(environment).parse_args(words)
    if arguments.verb == "pull":
        from zchunked.cli import pull  # noqa: PLC0415 - the network libraries take time to load

        return pull.pull(arguments, environment)
    from zchunked.cli import stored  # noqa: PLC0415

    return stored.images(arguments) if arguments.verb == "images" else stored.export_image(arguments)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{message}; {self.prog} --help lists what is possible")


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """The whole grammar; defaults come from the environment."""
    top = _Parser(
        prog="zpull", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EXIT_CODES,
        usage="zpull [pull] IMAGE [--to DEST] [options]\n       zpull export IMAGE --to DEST\n       zpull images",
        description="Download every needed byte of a container image once, and prove every byte that is kept.",
    )  # fmt: skip
    top.add_argument("--version", action="version", version=f"zpull {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)
    pull = verbs.add_parser(
        "pull",
        help="pull an image (the verb may be left out)",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    pull.add_argument("image", metavar="IMAGE", help="[docker://]host/repository[:tag][@digest]")
    _store(pull, environment)
    _output(pull, environment)
    _to(pull)
    _platform(pull, environment)
    _registry(pull, environment)
    _network(pull, environment)
    export = verbs.add_parser("export", help="write a pulled image somewhere, without the network")
    export.add_argument("image", metavar="IMAGE")
    _store(export, environment)
    _output(export, environment)
    _to(export)
    _platform(export, environment)
    images = verbs.add_parser("images", help="list the pulled images")
    _store(images, environment)
    _output(images, environment)
    return top


def _to(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--to", action="append", default=[], metavar="DEST",
        help="also write the image: oci:DIR[:tag], oci-archive:FILE, docker-archive:FILE (- is standard output); repeatable",
    )  # fmt: skip


def _store(verb: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    verb.add_argument(
        "--store", metavar="DIR", default=environment.get("ZPULL_STORE"), help="where downloaded bytes are kept"
    )


def _platform(verb: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    verb.add_argument(
        "--platform",
        metavar="OS/ARCH[/VARIANT]",
        default=environment.get("ZPULL_PLATFORM"),
        help="which image of an index",
    )


def _output(verb: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    verb.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        default=_flag(environment, "ZPULL_QUIET"),
        help="print the digest alone, no progress",
    )
    verb.add_argument(
        "--format", choices=("text", "json"), default=environment.get("ZPULL_FORMAT", "text"), help="json: the receipt"
    )


def _registry(verb: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    group = verb.add_argument_group("registry")
    group.add_argument(
        "--authfile",
        metavar="FILE",
        default=environment.get("ZPULL_AUTHFILE"),
        help="credentials, as podman and docker keep them",
    )
    group.add_argument(
        "--creds",
        metavar="USER[:PASSWORD]",
        default=environment.get("ZPULL_CREDS"),
        help="credentials; - reads them from standard input",
    )
    group.add_argument(
        "--tls-verify", nargs="?", const="true", default=environment.get("ZPULL_TLS_VERIFY", "true"), choices=("true", "false"),
        help="false: accept any certificate, and plain http",
    )  # fmt: skip
    group.add_argument(
        "--plain-http", action="store_true", default=_flag(environment, "ZPULL_PLAIN_HTTP"), help="speak http"
    )


def _network(verb: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    group = verb.add_argument_group("network")
    group.add_argument(
        "-j", "--jobs", type=_jobs, default=environment.get("ZPULL_JOBS", "8"), help="connections at a time (8)"
    )
    group.add_argument(
        "--patience", type=_seconds, metavar="SECONDS", default=environment.get("ZPULL_PATIENCE", "60"),
        help="how long an outage is borne (60); 0: not at all",
    )  # fmt: skip
    group.add_argument(
        "--retry", type=_count, metavar="N", default=environment.get("ZPULL_RETRY"), help="never more retries than this"
    )
    group.add_argument(
        "--deadline",
        type=_seconds,
        metavar="SECONDS",
        default=environment.get("ZPULL_DEADLINE"),
        help="give up after this long",
    )
    group.add_argument(
        "--min-rate",
        type=size,
        metavar="BYTES/S",
        default=environment.get("ZPULL_MIN_RATE"),
        help="give up when slower than this",
    )
    group.add_argument(
        "--stall-timeout", type=_seconds, metavar="SECONDS", default=environment.get("ZPULL_STALL_TIMEOUT", "10"),
        help="a connection without a byte for this long is broken (10)",
    )  # fmt: skip
    group.add_argument(
        "--max-gap",
        type=size,
        metavar="BYTES",
        default=environment.get("ZPULL_MAX_GAP"),
        help="unneeded bytes to buy to save a request; 0: none",
    )
    group.add_argument(
        "--exact",
        action="store_true",
        default=_flag(environment, "ZPULL_EXACT"),
        help="take layers whole, so that exports keep the registry's digests",
    )
    group.add_argument(
        "--progress",
        choices=("auto", "bar", "plain", "json", "none"),
        default=environment.get("ZPULL_PROGRESS", "auto"),
    )
    group.add_argument(
        "--explain-retries",
        action="store_true",
        default=_flag(environment, "ZPULL_EXPLAIN_RETRIES"),
        help="say why each retry was made",
    )
    group.add_argument(
        "--digestfile",
        metavar="FILE",
        default=environment.get("ZPULL_DIGESTFILE"),
        help="write the manifest digest there",
    )


def _flag(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").lower() in ("1", "true", "yes", "on")


def _jobs(text: str) -> int:
    number = _count(text)
    if not 1 <= number <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 1 and 64")
    return number


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _seconds(text: str) -> float:
    try:
        number = float(text.removesuffix("s"))
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return number


def size(text: str) -> int:
    """`300k`, `1.5MB`, `64KiB`, `4096`: bytes."""
    lower = text.strip().lower().removesuffix("b")
    factors = {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "k": 10**3, "m": 10**6, "g": 10**9}
    unit = next((one for one in factors if lower.endswith(one)), "")
    try:
        number = float(lower.removesuffix(unit)) * factors.get(unit, 1)
    except ValueError:
        number = -1.0
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes (4096, 64k, 1.5MB)")
    return int(number)
