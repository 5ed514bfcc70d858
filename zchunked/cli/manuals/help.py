"""Help texts: the first screen, and what follows each verb's options."""

from __future__ import annotations

from zchunked.cli.words.grammar import Verb
from zchunked.cli.words.tables import FAMILIES, VERBS

EXIT_CODES = (
    (0, "done"),
    (1, "unexpected"),
    (2, "usage or bad reference"),
    (3, "not found"),
    (4, "access denied"),
    (5, "gave up on the network: run again to resume"),
    (6, "integrity: bytes are not what their digest promised"),
    (7, "malformed or hostile metadata"),
    (8, "local trouble: disk full, target not empty"),
    (9, "refused: above a limit that you set"),
    (130, "interrupted: run again to resume (143 on SIGTERM, 129 on SIGHUP)"),
)
VARIABLES = (
    "Each option has a variable: --max-gap is ZPULL_MAX_GAP. What is typed wins; an empty "
    "variable counts as none.\n"
    "A switch takes true or false (1 or 0, yes or no; in any case), typed as --switch=false or "
    "in its variable."
)
_UNITS = (
    "TIME is 90, 90s, 10m or 1h. BYTES is 4096, 64k or 1.5MB. RATE is 500kB or 4Mbit, a second."
)
_USAGE = """usage: zpull [pull] IMAGE… [--to DEST] [options]
       zpull VERB [options]              (zpull VERB --help lists the options of a verb)"""
_OPTIONS = """
      --to DEST           also write it: oci:DIR[:tag], oci-archive:FILE, docker-archive:FILE
      --platform OS/ARCH  which image of an index to take (default: this machine's)
      --store DIR         folder that keeps downloaded bytes (default: ~/.cache/zpull)
      --patience TIME     how long an outage is tolerated: 90, 10m (default 60s; 0: fail at once)
  -j, --jobs N            connections at a time (default 8)
      --limit-rate RATE   receive no faster than this: 500kB, 4Mbit (default: unlimited)
  -q, --quiet             print the digest alone
  -v, --verbose           show each request
      --format json       print the receipt: where every byte went"""


def first_screen(*, is_short: bool = False) -> str:
    """What `zpull --help` prints; the short one is for who typed nothing."""
    lines = [
        _USAGE,
        "",
        "Download every needed byte of a container image once, and prove every byte that is kept.",
        "",
    ]
    for title, names in FAMILIES:
        lines.append(f"{title}:")
        for name in names:
            words = " ".join([name, *(one.shown for one in VERBS[name].arguments)])
            lines.append(f"  {words:<22}{VERBS[name].summary}")
    lines.append("")
    if is_short:
        return "\n".join(
            [*lines, "Example: zpull registry.example/app:v2 --to oci:./app", "More: zpull --help"]
        )
    lines += [
        "Examples:",
        *(
            f"  {example}"
            for name in ("pull", "plan", "publish")
            for example in VERBS[name].examples
        ),
    ]
    lines += [
        "",
        "Options used most (zpull pull --help lists all, with their defaults):",
        *_OPTIONS.split("\n")[1:],
    ]
    lines += [
        "      --version           print the version",
        "      --print-completion bash|zsh|fish|tcsh, --print-manual",
    ]
    lines += ["", VARIABLES, "", exit_codes(), ""]
    return "\n".join(lines)


def exit_codes() -> str:
    return "\n".join(["Exit codes:", *(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES)])


def verb_epilog(verb: Verb) -> str:
    """Examples, variables and exit codes."""
    examples = (
        "\n".join(["Examples:", *(f"  {one}" for one in verb.examples)]) + "\n\n"
        if verb.examples
        else ""
    )
    units = f"{_UNITS}\n" if len(verb.groups) > 1 else ""
    return f"{examples}{units}{VARIABLES}\n\n{exit_codes()}"
