"""Arguments: the verbs and their options. Each option has a ZPULL_… variable; what is typed wins."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from zchunked import __version__
from zchunked.errors import UsageError

VERBS = ("pull", "plan", "publish", "convert", "fetch", "locate", "export", "images", "verify", "serve")
_USAGE = """zpull [pull] IMAGE [--to DEST] [options]
       zpull plan IMAGE
       zpull publish IMAGE TARGET
       zpull convert SOURCE TARGET
       zpull fetch | locate IMAGE [DIGEST]
       zpull export IMAGE --to DEST
       zpull images | verify
       zpull serve"""
_IMAGE = (
    "[docker://]host/repository[:tag][@digest], oci:DIR[:tag], oci+https://host/base[:tag], s3://bucket/prefix[:tag]"
)
_EXIT_CODES = """exit codes:
  0 done                            6 integrity: bytes are not what their digest promised
  1 unexpected                      7 malformed or hostile metadata
  2 usage or bad reference          8 local trouble: disk full, target not empty
  3 not found                       9 refused: above --max-bytes
  4 access denied                 130 interrupted: run again to resume
  5 gave up on the network: run again to resume"""


def dispatch(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Parse and run. A word that is a verb is a verb; anything else is an image to pull."""
    words = list(argv)
    if not words:
        parser(environment).print_help()
        return 2
    if words[0] not in VERBS and words[0] not in ("-h", "--help", "--version", "--print-completion"):
        words.insert(0, "pull")
    arguments = parser(environment).parse_args(words)
    if arguments.print_completion:
        import shtab  # noqa: PLC0415

        print(shtab.complete(parser(environment), arguments.print_completion))
        return 0
    if arguments.verb in ("pull", "plan"):
        from zchunked.cli.commands import pull  # noqa: PLC0415 - the network libraries take time to load

        return pull.pull(arguments, environment)
    if arguments.verb == "publish":
        from zchunked.cli.commands import publish  # noqa: PLC0415

        return publish.publish(arguments, environment)
    if arguments.verb == "serve":
        from zchunked.cli.commands import serve  # noqa: PLC0415

        return serve.serve(arguments, environment)
    if arguments.verb == "convert":
        from zchunked.cli.commands import convert  # noqa: PLC0415

        return convert.convert(arguments, environment)
    if arguments.verb in ("fetch", "locate"):
        from zchunked.cli.commands import objects  # noqa: PLC0415

        return {"fetch": objects.fetch, "locate": objects.locate}[arguments.verb](arguments, environment)
    from zchunked.cli.commands import stored  # noqa: PLC0415

    verbs = {"images": stored.images, "export": stored.export_image, "verify": stored.verify_store}
    return verbs[arguments.verb](arguments)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; {self.prog} --help lists what is possible")


class _Options:
    """Adds options to a verb; each has a default from its variable: `--max-gap` is ZPULL_MAX_GAP."""

    def __init__(self, group: argparse._ActionsContainer, environment: Mapping[str, str]) -> None:
        self._group, self._environment = group, environment

    def value(self, flag: str, help: str, *short: str, default: str | None = None, **how: Any) -> None:  # noqa: A002
        how["default"] = self._environment.get(_variable(flag)) or default
        self._group.add_argument(*short, flag, help=help, **how)

    def several(self, flag: str, help: str, **how: Any) -> None:  # noqa: A002
        """Repeatable; the variable has blanks in between."""
        known = self._environment.get(_variable(flag), "").split()
        self._group.add_argument(flag, action="append", default=known, help=help, **how)

    def switch(self, flag: str, help: str, *short: str) -> None:  # noqa: A002
        on = self._environment.get(_variable(flag), "").lower() in ("1", "true", "yes", "on")
        self._group.add_argument(*short, flag, help=help, action="store_true", default=on)


def _variable(flag: str) -> str:
    return "ZPULL_" + flag.removeprefix("--").replace("-", "_").upper()


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """The whole grammar; defaults come from the environment."""
    top = _Parser(
        prog="zpull",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXIT_CODES,
        usage=_USAGE,
        description="Download every needed byte of a container image once, and prove every byte that is kept.",
    )
    top.add_argument("--version", action="version", version=f"zpull {__version__}")
    top.add_argument("--print-completion", choices=("bash", "zsh", "tcsh"), help="print a script for the shell")
    verbs = top.add_subparsers(prog="zpull", dest="verb", metavar="VERB", parser_class=_Parser)
    pull = verbs.add_parser(
        "pull",
        help="pull an image (the verb may be left out)",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    plan = verbs.add_parser("plan", help="say what a pull would cost; fetches no more than tables of contents")
    publish = verbs.add_parser("publish", help="put an image where any web server or bucket can serve it")
    convert = verbs.add_parser("convert", help="write an image's layers as zstd:chunked, so that updates are cheap")
    export = verbs.add_parser("export", help="write a pulled image somewhere, without the network")
    images = verbs.add_parser("images", help="list the pulled images")
    verify = verbs.add_parser("verify", help="re-hash the store and drop what is damaged; the next pull heals it")
    for verb in (pull, plan, publish, convert, export, images, verify):
        if verb in (pull, plan):
            where = "a folder, tar file or OCI layout here whose files may stand in for chunks; repeatable"
            known = [path for path in environment.get("ZPULL_SEED", "").split(os.pathsep) if path]
            verb.add_argument("--seed", action="append", default=known, metavar="PATH", help=where)
        if verb in (pull, plan, export):
            verb.add_argument("image", metavar="IMAGE", help=_IMAGE)
            _image(verb, environment)
        if verb is publish:
            verb.add_argument("image", metavar="IMAGE", help=f"{_IMAGE}; one in the store is published as it is")
            target = "DIR[:tag], s3://bucket/prefix[:tag], gs://… or az://…; the tag is IMAGE's unless given"
            verb.add_argument("target", metavar="TARGET", help=target)
            _platform(verb, environment)
        if verb is convert:
            verb.add_argument("image", metavar="SOURCE", help=_IMAGE)
            verb.add_argument("target", metavar="TARGET", help="oci:DIR[:tag] or oci-archive:FILE[:tag] (- is stdout)")
            _platform(verb, environment)
            _writing(_Options(verb.add_argument_group("layers"), environment))
        _common(_Options(verb, environment))
    fetch = verbs.add_parser("fetch", help="one object to standard output: the manifest, or a blob by its digest")
    locate = verbs.add_parser("locate", help="say where an image's blobs can be downloaded, without downloading any")
    for verb in (fetch, locate):
        _object(verb, environment)
    serve = verbs.add_parser("serve", help="a registry on loopback through which every engine pulls partially")
    _serve(_Options(serve, environment))
    for verb in (pull, plan, publish, convert, fetch, locate, serve):
        if verb in (pull, plan, publish, convert):
            _spending(_Options(verb.add_argument_group("spending"), environment))
        _registry(_Options(verb.add_argument_group("registry"), environment))
        _network(_Options(verb.add_argument_group("network"), environment))
    return top


def _serve(options: _Options) -> None:
    listen = "address to listen on (default 127.0.0.1:5055); beyond loopback give a certificate as well"
    options.value("--listen", listen, default="127.0.0.1:5055", metavar="HOST:PORT")
    options.value("--tls-cert", "serve https with this certificate", metavar="FILE")
    options.value("--tls-key", "its key", metavar="FILE")
    options.switch("--insecure-listen", "serve other machines unencrypted: they pull with your credentials")
    allow = "serve these upstreams alone; repeatable (default: well-known ones and registries.conf's)"
    options.several("--allow", allow, metavar="HOST[/PREFIX]")
    options.several("--upstream", "a name for a host that has a port; repeatable", metavar="NAME=HOST[:PORT]")
    options.value("--token", "clients must know the token in this file", metavar="FILE")
    stale = "seconds for which the last answer to a tag is good while its upstream is down (default 3600)"
    options.value("--stale", stale, type=_seconds, default="3600", metavar="S")
    prefetch = "pull an image's layers once its manifest was asked for (default true)"
    options.value("--prefetch", prefetch, choices=("true", "false"), default="true")
    engines = ("docker", "containerd", "podman", "crio", "k3s", "buildkit")
    options.value("--config-for", "print what to write where for this engine, and end", choices=engines)
    options.switch("--verbose", "say what went wrong with clients", "-v")
    _common(options, "no access log")


def _object(verb: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    verb.add_argument("image", metavar="IMAGE", help="[docker://]host/repository[:tag][@digest]")
    verb.add_argument("digest", metavar="DIGEST", nargs="?", help="a blob or manifest of the same repository")
    options = _Options(verb, environment)
    options.value("--platform", "which image of an index", metavar="OS/ARCH[/VARIANT]")
    if verb.prog.endswith("fetch"):
        verb.add_argument("--media-type", metavar="TYPE", help="what DIGEST is, where it helps to know")
    _common(options, "no progress" if verb.prog.endswith("fetch") else "print URLs alone")


def _image(verb: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    verb.add_argument(
        "--to",
        action="append",
        default=[],
        metavar="DEST",
        help="write the image there: oci:DIR[:name], oci-archive:FILE[:name], docker-archive:FILE[:name] "
        "(- is stdout); repeatable",
    )
    _Options(verb, environment).switch("--force", "let --to replace a file, or fill a folder, that holds no image")
    _platform(verb, environment)


def _platform(verb: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    _Options(verb, environment).value("--platform", "which image of an index", metavar="OS/ARCH[/VARIANT]")


def _common(options: _Options, quiet: str = "print digests alone, and no progress") -> None:
    options.value("--store", "where downloaded bytes are kept", metavar="DIR")
    options.switch("--quiet", quiet, "-q")
    options.value("--format", "json: the whole story", choices=("text", "json"), default="text")


def _registry(options: _Options) -> None:
    options.value("--authfile", "credentials, as podman and docker keep them", metavar="FILE")
    options.value("--creds", "credentials; - reads them from standard input", metavar="USER[:PASSWORD]")
    verify = "false: accept any certificate, and plain http"
    options.value("--tls-verify", verify, nargs="?", const="true", default="true", choices=("true", "false"))
    options.switch("--plain-http", "speak http")
    options.value("--cert-dir", "CA certificates (*.crt) and our own (*.cert with *.key), for all hosts", metavar="DIR")
    options.value("--registries-conf", "mirrors, locations and blocks, as podman keeps them", metavar="FILE")


def _network(options: _Options) -> None:
    options.value("--jobs", "connections at a time (8)", "-j", type=_jobs, default="8", metavar="N")
    options.value(
        "--patience", "how long an outage is borne (60); 0: not at all", type=_seconds, default="60", metavar="S"
    )
    options.value("--retry", "never more retries than this", type=_count, metavar="N")
    options.value("--deadline", "give up after this long", type=_seconds, metavar="S")
    options.value("--min-rate", "give up when slower than this", type=size, metavar="BYTES/S")
    stall = "a connection without a byte for this long is broken (10, or half the patience where that is less)"
    options.value("--stall-timeout", stall, type=_seconds, metavar="S")
    options.switch("--offline", "no request at all: from the store and from seeds alone")
    styles = ("auto", "bar", "plain", "json", "none")
    options.value("--progress", "what stderr shows", choices=styles, default="auto")
    options.switch("--explain-retries", "say why each retry was made")


def _spending(options: _Options) -> None:
    options.value("--max-bytes", "refuse a pull that would fetch more than this", type=size, metavar="BYTES")
    options.value("--rate", "the link's rate, for the plan's time: 4Mbit, 500kB", type=rate, metavar="RATE")
    options.switch("--dry-run", "only say what it would cost: the same as the verb plan")
    options.value("--max-gap", "the most unneeded bytes to buy to save a request; 0: none", type=size, metavar="BYTES")
    options.switch("--exact", "take layers whole, so that exports keep the registry's digests")
    options.value("--digestfile", "write the manifest digest there", metavar="FILE")


def _writing(options: _Options) -> None:
    level = "effort of the compression, from 1 to 19 (3): smaller, and slower"
    options.value("--level", level, type=_level, default="3", metavar="N")


def _level(text: str) -> int:
    number = _count(text)
    if not 1 <= number <= 19:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 1 and 19")
    return number


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


def rate(text: str) -> float:
    """Bytes per second: `4Mbit` counts bits, `500kB` and `500k` bytes, with or without `/s`."""
    lower = text.strip().lower().removesuffix("/s").removesuffix("ps")
    bits = lower.removesuffix("bit")
    number = size(bits) / 8 if bits != lower else float(size(lower))
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no rate (4Mbit, 500kB)")
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
