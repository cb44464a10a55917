"""Removing secrets from what is kept for a bug report. Pure.

Known secrets (the values of a VM's environment) are replaced wherever they stand; others are known by their form. A
guest writes much of what is looked at, so every pattern takes linear time: repetitions are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from banger.core import codec
from banger.core.models import Image
from banger.core.wire.vm_spec import VmSpec

REDACTED = "<redacted>"
#: A value shorter than this is likelier a setting than a secret, and may be a part of any word.
_LEAST_LENGTH = 6

_NAMED = (
    r"(?:pass(?:word|wd|phrase)?|secrets?|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?|client[_-]?id)"
)
_SECRET_NAME = re.compile(_NAMED, re.IGNORECASE)
#: What is kept of a match is its group 1, if it has one.
_FORMS: Sequence[re.Pattern[str]] = (
    re.compile(
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:.*?-----END [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----|.*\Z)",
        re.DOTALL,
    ),
    re.compile(r"(://)[^\s/?#]{1,256}@"),  # a password that is not encoded may have an @ of its own
    re.compile(r"((?:set-)?cookie[\"']?\s{0,3}[:=]\s{0,3})[^\r\n]{1,4096}", re.IGNORECASE),
    re.compile(
        r"((?:proxy-)?authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:(?:bearer|basic|token)\s{1,3})?)[^\s\"']+",
        re.IGNORECASE,
    ),
    re.compile(r"(\bbearer\s{1,3})[\w.~+/=-]{8,}", re.IGNORECASE),
    re.compile(
        "("
        + _NAMED
        + r"[\w.-]{0,40}[\"']?\s{0,3}[=:]\s{0,3})(?:\"(?:[^\"\\\n]|\\.){0,4096}\"|'[^'\n]{0,4096}'|[^\s,;&\"']+)",
        re.IGNORECASE,
    ),
    re.compile(r"(\bpwd\s{0,3}=\s{0,3})(?![\s/])[^\s,;&]{1,4096}", re.IGNORECASE),  # else it is a place
    re.compile(r"(\"auth\"\s{0,3}:\s{0,3}\")[^\"\n]{1,4096}"),  # of Docker's credential file
    # Three parts (RFC 7519), tried once per run of characters: they may be long.
    re.compile(r"(?<![\w-])eyJ[\w-]{8,4096}\.[\w-]{8,4096}\.[\w-]{0,4096}"),
    re.compile(r"([?&](?:sig|signature|x-amz-[\w-]{1,40}|key|code|auth)=)[^&\s\"']+", re.IGNORECASE),
    re.compile(
        r"\b(?:gh[oprsu]_\w{20,255}|github_pat_\w{20,255}|glpat-[\w-]{16,255}|xox[abprs]-[\w-]{10,255}|npm_\w{20,255}"
        r"|dckr_[a-z]{2,8}_[\w-]{16,255}|pypi-[\w-]{16,255}|[rs]k_(?:live|test)_\w{16,255}|xapp-[\w-]{10,255}"
        r"|A(?:KI|SI)A[0-9A-Z]{16}|AIza[\w-]{30,60}|sk-[\w-]{20,255}|hf_\w{20,255})"
    ),
)  # fmt: skip
_HOME = re.compile(r"/(?:home|Users)/[^/\s:,;\"']{1,64}|(?<![\w/])/root(?=/)")


def redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """What takes ``secrets``, and everything in the form of one, out of a text."""
    known = sorted({secret for secret in secrets if len(secret) >= _LEAST_LENGTH}, key=len, reverse=True)
    values = re.compile("|".join(map(re.escape, known))) if known else None

    def redact(text: str) -> str:
        if values is not None:
            text = values.sub(REDACTED, text)
        for form in _FORMS:
            text = form.sub(lambda match: (match[1] if match.re.groups else "") + REDACTED, text)
        return text

    return redact


def secrets_of(spec: VmSpec, image: Image | None) -> list[str]:
    """Values that must not be told: a VM's environment, and what an image's calls a secret by its name."""
    values = [value for _, _, value in (item.partition("=") for item in spec.env)]
    for item in image.config.env if image else ():
        name, _, value = item.partition("=")
        if _SECRET_NAME.search(name):
            values.append(value)
    return [part for value in values for part in (value, *value.splitlines())]


def spec_without_secrets(spec: VmSpec, redact: Callable[[str], str]) -> VmSpec:
    """A spec whose environment has only names, and no other field a secret."""
    names = tuple(f"{item.partition('=')[0]}={REDACTED}" for item in spec.env)
    plain = _redacted(codec.to_plain(replace(spec, env=())), redact)
    return replace(codec.from_plain(VmSpec, plain), env=names)


def _redacted(plain: Any, redact: Callable[[str], str]) -> Any:
    match plain:
        case str():
            return redact(plain)
        case list():
            return (
                words_without_secrets(plain, redact) if _are_words(plain) else [_redacted(one, redact) for one in plain]
            )
        case dict():
            return {key: _redacted_value(key, value, redact) for key, value in plain.items()}
    return plain


def _redacted_value(key: str, value: Any, redact: Callable[[str], str]) -> Any:
    """Of an object: a text whose name calls it a secret (a label, say) is one."""
    if isinstance(value, str) and value and _SECRET_NAME.search(key):
        return REDACTED
    return _redacted(value, redact)


def _are_words(plain: Sequence[Any]) -> bool:
    return all(isinstance(one, str) for one in plain)


def words_without_secrets(words: Sequence[str], redact: Callable[[str], str]) -> list[str]:
    """A command line; what follows an option like ``--password`` is one too."""
    after_option = [False, *(_is_option(word) for word in words)]
    return [REDACTED if hidden else redact(word) for word, hidden in zip(words, after_option, strict=False)]


def _is_option(word: str) -> bool:
    return word.startswith("-") and "=" not in word and _SECRET_NAME.search(word) is not None


def without_homes(text: str) -> str:
    """Whose home a path is in is left out."""
    return _HOME.sub("~", text)
