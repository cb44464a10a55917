"""Suggestions for unknown commands and options: always a full command. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from banger.commands.vocabulary import COMMANDS, FIRST_VERB, INSTEAD, NOUNS, VERBS

#: The commands there are: what stands alone with no verbs, and nouns with theirs.
Commands = Mapping[str, Sequence[str]]

_LONGEST = 400
_HELP = ("--help", "-h")


def typed(words: Iterable[str]) -> str:
    """A command line as it can be typed; what is too long for a hint is cut to the command itself."""
    whole = shlex.join(["banger", *words])
    return whole if len(whole) <= _LONGEST else shlex.join(["banger", *list(words)[:2], "--help"])


def meant_command(words: Sequence[str], commands: Commands) -> list[str] | None:
    """The words of a whole command that begins as ``words`` were probably meant to; ``None`` if nobody can tell.

    Args:
        words: what was typed behind ``banger``; the first word, or the one behind a noun, is unknown.
        commands: the commands there are.
    """
    word, rest = words[0].lower(), list(words[1:])
    if commands.get(word):
        return _below(word, rest, commands)
    if swapped := swapped_words(words, commands):
        return swapped
    if word in commands:
        return [word, *rest]
    if "/" in word or ":" in word:
        return ["run", words[0], *rest]  # an image
    found = _path(word, commands) or _elsewhere(word, commands) or _close_to(word, commands)
    return _completed(found.split(), rest, commands) if found else None


def _path(word: str, commands: Commands) -> str:
    """What another tool's word stands for here, if there is such a command."""
    for words in (COMMANDS, INSTEAD, NOUNS):
        if (found := words.get(word, "")) and exists(found, commands):
            return found
    return ""


def exists(path: str, commands: Commands) -> bool:
    """True if the words are a noun, a noun and its verb, or a command that stands alone."""
    first, *others = path.split()
    verbs = commands.get(first)
    return verbs is not None and (not verbs or not others or others[0] in verbs)


def _close_to(word: str, commands: Commands) -> str:
    known = [name for name in (*commands, *COMMANDS, *NOUNS) if not name.startswith("_")]
    close = get_close_matches(word, known, n=1) or get_close_matches(word, INSTEAD, n=1, cutoff=0.8)
    if not close:
        return ""
    return close[0] if close[0] in commands else _path(close[0], commands)


def swapped_words(words: Sequence[str], commands: Commands) -> list[str] | None:
    """``delete image x`` and ``images delete x`` as ``image delete x``; ``None`` for anything else."""
    if len(words) < 2:
        return None
    first, second = (word.lower() for word in words[:2])
    for noun, other in ((second, first), (first, second)):
        verb = VERBS.get(other, other)
        for name in (NOUNS.get(noun, noun), noun.removesuffix("s")):
            if name != words[0] and words[0] not in NOUNS and verb in commands.get(name, ()):
                return [name, verb, *words[2:]]
    return None


def _below(noun: str, rest: list[str], commands: Commands) -> list[str] | None:
    """A noun with a verb of its own in place of the unknown one."""
    if not rest or rest[0].startswith("-"):
        return [noun, FIRST_VERB.get(noun, "list"), *(word for word in rest if word not in _HELP)]
    word, others, verbs = rest[0].lower(), rest[1:], commands[noun]
    if (verb := VERBS.get(word, word)) in verbs:
        return [noun, verb, *others]
    instead = INSTEAD.get(f"{noun} {word}", INSTEAD.get(word, "")).split()
    if len(instead) > 1 and exists(" ".join(instead), commands):
        return _completed([noun, *instead[1:]] if instead[1] in verbs else instead, others, commands)
    close = get_close_matches(word, verbs, n=1, cutoff=0.7)
    if not close and (found := _elsewhere(word, commands)):
        return [*found.split(), *others]
    close = close or get_close_matches(word, verbs, n=1, cutoff=0.5)
    return [noun, close[0], *others] if close else None


def _elsewhere(word: str, commands: Commands) -> str | None:
    """A verb by its exact name, with the first noun that has it."""
    return next((f"{noun} {word}" for noun, verbs in commands.items() if word in verbs), None)


def _completed(found: list[str], rest: list[str], commands: Commands) -> list[str] | None:
    """``found`` with what followed; a noun alone gets a verb, a verb that needs a name gets one to fill in."""
    if len(found) == 1 and (noun := NOUNS.get(found[0], found[0])) in commands and commands[noun]:
        return meant_command([noun, *rest], commands)
    if rest and (noun := rest[0].removesuffix("s")) in commands and found[-1] in commands[noun]:
        return [noun, found[-1], *rest[1:]]  # get vms
    named = any(not word.startswith("-") for word in rest)
    if not named and found[0] in ("vm", "image") and found[1] not in ("list", "prune"):
        return [*found, "NAME", *rest]
    return [*found, *rest]
