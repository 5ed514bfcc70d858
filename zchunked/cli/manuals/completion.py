"""Shell completions made from the parser: options, files, choices, stored images, verbs."""

from __future__ import annotations

import argparse

import shtab

from zchunked.cli.words.grammar import Verb
from zchunked.cli.words.parser import add_options, parser
from zchunked.cli.words.tables import VERBS

_NAMES = "zpull images 2>/dev/null | tail -n +2 | cut -d ' ' -f 1"
"""Of stored images, one on a line; a command that every shell reads alike."""
_IMAGES = {
    "bash": "_zpull_images",
    "zsh": "_zpull_images",
    "fish": f"({_NAMES})",
    "tcsh": f"`{_NAMES}`",
}
_FISH_NAMES = _NAMES.replace("'", "\\'")
_PREAMBLE = {
    "bash": f"""_zpull_images() {{
  compgen -W "$({_NAMES})" -- "$1"
  compgen -d -- "$1"
}}
# The verb `pull` may be left out.
_shtab_zpull_pos_0_COMPGEN=_zpull_images
""",
    "zsh": f"""_zpull_images() {{
  local -a names
  names=(${{(f)"$({_NAMES})"}})
  compadd -a names
}}
# The verb `pull` may be left out.
_zpull_verbs_and_images() {{
  _shtab_zpull_commands
  _zpull_images
}}
""",
    "fish": "",
    "tcsh": "",
}
_AFTER = {
    # Bash takes each colon for the end of a word: the words are put together before, and what
    # stands in front of the last colon is cut off after.
    "bash": """
_zpull() {
  local line="${COMP_LINE:0:$COMP_POINT}" word prefix
  local -a COMP_WORDS
  read -ra COMP_WORDS <<<"$line"
  [[ "$line" == *[[:space:]] ]] && COMP_WORDS+=("")
  word="${COMP_WORDS[${#COMP_WORDS[@]}-1]}"
  if [[ "$word" == --*=* ]]; then
    COMP_WORDS[${#COMP_WORDS[@]}-1]="${word%%=*}"
    word="${word#*=}"
    COMP_WORDS+=("$word")
  fi
  local COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  _shtab_zpull
  if [[ "$word" == *:* && "$COMP_WORDBREAKS" == *:* ]]; then
    prefix="${word%"${word##*:}"}"
    COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
  fi
}
complete -o bashdefault -F _zpull zpull
""",
    # The script begins by forgetting all that was said before.
    "fish": f"complete -c zpull -n __fish_use_subcommand -a '({_FISH_NAMES})' -d 'stored image'\n",
}
"""What follows the script."""


def completion(shell: str) -> str:
    """The script, to be put where the shell looks for such."""
    top = parser()
    add_options(top, VERBS["pull"])  # for the form without a verb
    _complete(top, VERBS["pull"])
    actions = top._actions  # noqa: SLF001
    verbs = next(each for each in actions if isinstance(each, argparse._SubParsersAction))  # noqa: SLF001
    for name, verb in verbs.choices.items():
        _complete(verb, VERBS[name])
    script = shtab.complete(top, shell, preamble=_PREAMBLE[shell])
    if shell == "zsh":
        script = script.replace("': :_shtab_zpull_commands'", "': :_zpull_verbs_and_images'")
        script = script.replace('"(*)::', '"*:')  # one image or several: each is completed
    return script + _AFTER.get(shell, "")


def _complete(of: argparse.ArgumentParser, verb: Verb) -> None:
    """Set what the words of each action may be; argparse itself must not check them."""
    options = {option.name: option for option in verb.options}
    for action in of._actions:  # noqa: SLF001
        option = options.get(action.dest)
        if option is not None and option.choices:
            action.choices = option.choices
        elif option is not None and option.is_path:
            action.complete = shtab.DIRECTORY if option.metavar == "DIR" else shtab.FILE  # type: ignore[attr-defined]
        elif option is None and action.dest == "image":
            action.complete = _IMAGES  # type: ignore[attr-defined]
