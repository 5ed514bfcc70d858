"""Recognise verbs, and guess which verb a mistyped word meant."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from zchunked.errors import UsageError
from zchunked.oci.quoting import typed as quoted

_ELSEWHERE = {
    "help": "zpull --help",
    "version": "zpull --version",
    "list": "zpull images",
    "ls": "zpull images",
    "image": "zpull images",
    "ps": "zpull status",
    "login": "podman login or docker login (zpull reads the credentials that they keep)",
    "logout": "podman logout or docker logout (zpull reads the credentials that they keep)",
    "prune": "zpull gc",
    "rmi": "zpull rm",
    "remove": "zpull rm",
    "delete": "zpull rm",
    "save": "zpull export",
    "cat": "zpull fetch",
    "inspect": "zpull fetch",
    "manifest": "zpull fetch",
    "copy": "zpull IMAGE --to DEST, or zpull publish",
    "check": "zpull verify",
    "completion": "zpull --print-completion",
}
"""Words that people try as verbs, and the verb for that here. Real verbs are looked up first."""
_SHORT = 3  # letters: shorter words resemble too much
_LONG = 6  # from here on two slips are allowed


def meant(word: str, verbs: Collection[str]) -> str | None:
    """What to run instead of this word, which is no verb; None for a word that may be an image."""
    lower = word.lower()
    if not word or any(one in word for one in "/.:@"):
        return None
    if lower in verbs:
        return f"zpull {lower}"
    if lower in _ELSEWHERE:
        return _ELSEWHERE[lower]
    if len(lower) < _SHORT:
        return None
    verb = nearest(lower, [verb for verb in verbs if len(verb) > _SHORT])
    return f"zpull {verb}" if verb else None


def nearest(word: str, names: Collection[str]) -> str | None:
    """The name that may have been mistyped so; None where none is one or two slips away."""
    fewest, name = min((_slips(word, name), name) for name in names)
    return name if fewest <= (1 if len(name) < _LONG else 2) else None


def refuse_lookalike(word: str, verbs: Collection[str]) -> None:
    """UsageError for a bare word that was hardly meant as an image of Docker Hub."""
    if (instead := meant(word, verbs)) is not None:
        raise UsageError(
            f"{quoted(word, 40)} is not a verb of zpull; did you mean {instead}? (an image of "
            f"that name is {quoted(f'{word.lower()}:latest', 50)}; zpull --help lists the verbs)"
        )


def _slips(one: str, other: str) -> int:
    """Letters to add, drop, change or swap with their neighbour, at the least."""
    before: Sequence[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, wanted in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
