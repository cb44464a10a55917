"""Shell completion: the scripts that shells load, and the hidden verb that answers them.

Names of VMs, images, kernels and operations come from the daemon, if one answers at once; none is started. What a
parameter takes is told by its name (:mod:`banger.commands.options`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from typer import Argument, Context

from banger.client import Client
from banger.commands.session import CliSession
from banger.core.errors import BangerError, ErrorKind
from banger.core.plain_text import printable
from banger.layout import Layout

_TIMEOUT_S = 1.0
#: A candidate and what it is.
Candidate = tuple[str, str]

SCRIPTS: Mapping[str, str] = {
    "bash": """\
# banger completion for bash. To use it:  source <(banger completion bash)
_banger() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("$line")
    done < <(banger __complete bash -- "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *: ]]; then
        compopt -o nospace
    fi
}
complete -o default -F _banger banger
""",
    "zsh": """\
#compdef banger
# banger completion for zsh. To use it:  source <(banger completion zsh)
_banger() {
    local -a candidates
    candidates=("${(@f)$(banger __complete zsh -- "${(@)words[1,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${candidates[1]}" ]]; then
        _describe banger candidates
    else
        _files
    fi
}
compdef _banger banger
""",
    "fish": """\
# banger completion for fish. To use it:  banger completion fish | source
complete --command banger --no-files --arguments \\
    '(banger __complete fish -- (commandline -opc) (commandline -ct) 2>/dev/null)'
complete --command banger --condition '__fish_seen_subcommand_from cp export import register' --force-files
""",
}


def completion(ctx: Context, shell: Annotated[str, Argument(metavar="SHELL", help="bash, zsh or fish.")]) -> None:
    """Print a shell completion script."""
    session: CliSession = ctx.obj
    if shell not in SCRIPTS:
        message = f'there is no completion for "{shell}"'
        raise BangerError(ErrorKind.USAGE, message, subject=shell, hint=f"banger completion {'|'.join(SCRIPTS)}")
    session.show_document({"shell": shell, "script": SCRIPTS[shell]}, SCRIPTS[shell])


def complete(
    ctx: Context,
    shell: Annotated[str, Argument()],
    words: Annotated[list[str] | None, Argument()] = None,
) -> None:
    """Print completions of a command line."""
    session: CliSession = ctx.obj
    typed = words or [""]
    if shell == "bash":  # which cuts words at colons, so it hands over the line
        typed = typed[0].split(" ")
        typed = [word for word in typed[:-1] if word] + typed[-1:]
    found = [
        (printable(value), printable(meaning))
        for value, meaning in candidates(typed[1:] or [""], Names(session.layout))
    ]
    sys.stdout.writelines(f"{line}\n" for line in _format(shell, found, typed[-1]))


def _format(shell: str, found: Sequence[Candidate], word: str) -> Iterator[str]:
    for value, meaning in found:
        if shell == "zsh":
            escaped = value.replace(":", "\\:")
            yield f"{escaped}:{meaning}" if meaning else escaped
        elif shell == "fish":
            yield f"{value}\t{meaning}"
        else:
            yield value[word.rfind(":") + 1 :]  # bash replaces only what follows the last colon


class Names:
    """What can be named now."""

    def __init__(self, layout: Layout) -> None:
        self._client = Client(layout.socket, timeout_s=_TIMEOUT_S)

    def of(self, parameter: str) -> list[Candidate]:
        """The values of a parameter: fixed ones, or names from the daemon."""
        if (fixed := _fixed(parameter)) is not None:
            return [(value, "") for value in fixed]
        return _SOURCES[parameter](self) if parameter in _SOURCES else []

    def objects(self, collection: str) -> list[Candidate]:
        """Names and what they are; ids where there is no name."""
        rows = self._get(f"/v1/{collection}") or []
        return [(row.get("name") or row["id"], _meaning(row)) for row in rows]

    def catalog(self, kind: str) -> list[Candidate]:
        """Names of the catalog."""
        entries = (self._get("/v1/catalog") or {}).get(kind, [])
        return [(entry["name"], entry.get("summary") or "") for entry in entries]

    def releases(self) -> list[Candidate]:
        """Versions of VMMs that banger has installed."""
        rows = self._get("/v1/drivers") or []
        return [(row["version"], row.get("support") or "") for row in rows if row["origin"] == "installed"]

    def locations(self) -> list[Candidate]:
        """Beginnings of paths in VMs."""
        return [(f"{name}:", meaning) for name, meaning in self.objects("vms")]

    def _get(self, path: str) -> Any:
        try:
            return self._client.get(path)
        except BangerError:  # completion has no way to complain
            return None


def _fixed(parameter: str) -> Sequence[str] | None:
    """The values of a parameter that has fixed ones; those of a VM's fields are written down with them."""
    from banger.core.wire.facts import facts_of
    from banger.core.wire.vm_spec import VmSpec

    about = facts_of(VmSpec).get(parameter)
    values = [value for value in (*about.offers, *about.choices) if value] if about else []
    return values or _FIXED.get(parameter)


_FIXED: Mapping[str, Sequence[str]] = {
    "pull": ("missing", "always", "never"),
    "state": tuple("creating stopped starting running paused stopping suspending suspended failed deleting".split()),
    "until": ("stopped", "running"),
    "log_source": ("console", "vmm"),
    "form": ("bundle", "oci"),
    "installable": ("firecracker",),
    "shell": tuple(SCRIPTS),
}

_SOURCES: Mapping[str, Callable[[Names], list[Candidate]]] = {
    "vm": lambda names: names.objects("vms"),
    "vms": lambda names: names.objects("vms"),
    "image": lambda names: _merged(names.objects("images"), names.catalog("images")),
    "images": lambda names: names.objects("images"),
    "stored_image": lambda names: names.objects("images"),
    "reference": lambda names: names.catalog("images"),
    "kernel": lambda names: _merged(names.objects("kernels"), names.catalog("kernels")),
    "kernels": lambda names: names.objects("kernels"),
    "stored_kernel": lambda names: names.objects("kernels"),
    "kernel_names": lambda names: names.catalog("kernels"),
    "snapshot": lambda names: names.objects("snapshots"),
    "snapshots": lambda names: names.objects("snapshots"),
    "vm_or_snapshot": lambda names: _merged(names.objects("vms"), names.objects("snapshots")),
    "operation": lambda names: names.objects("operations"),
    "operations": lambda names: names.objects("operations"),
    "version": lambda names: names.releases(),
    "source": lambda names: names.locations(),
    "target": lambda names: names.locations(),
}


def candidates(words: Sequence[str], names: Names) -> list[Candidate]:
    """What may stand in place of the last word.

    Args:
        words: the command line behind ``banger``; the last word may be empty or unfinished.
        names: for the values of parameters.
    """
    from banger.cli import TREE, Noun, Verb, load_verb, member

    *before, word = words
    entries: Mapping[str, Verb | Noun] = TREE
    while before:
        entry = member(entries, before.pop(0))
        if isinstance(entry, Noun):
            entries = entry.verbs
        elif isinstance(entry, Verb):
            return _matching(word, _parameters(load_verb("", entry), before, word, names))
    visible = [(name, entry.summary) for name, entry in entries.items() if not getattr(entry, "hidden", False)]
    return _matching(word, visible)


def _parameters(command: Any, before: Sequence[str], word: str, names: Names) -> list[Candidate]:
    """What a command takes in this place: the value of an option, an option, or an argument."""
    if "--" in before:
        return []
    options = {name: param for param in command.params if param.param_type_name == "option" for name in param.opts}
    if before and _takes_value(options.get(before[-1])):
        return names.of(options[before[-1]].name)
    if word.startswith("-"):
        unused = {name: param for name, param in options.items() if name.startswith("--") and name not in before}
        return [(name, param.help or "") for name, param in unused.items() if not param.hidden]
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    place = sum(
        1
        for i, typed in enumerate(before)
        if not typed.startswith("-") and not (i and _takes_value(options.get(before[i - 1])))
    )
    if not arguments or (place >= len(arguments) and arguments[-1].nargs != -1):
        return []
    return names.of(arguments[min(place, len(arguments) - 1)].name)


def _takes_value(option: Any) -> bool:
    return option is not None and not option.is_flag


def _matching(word: str, found: Sequence[Candidate]) -> list[Candidate]:
    return [candidate for candidate in found if candidate[0].startswith(word)]


def _merged(*lists: Sequence[Candidate]) -> list[Candidate]:
    return list({value: (value, meaning) for found in reversed(lists) for value, meaning in found}.values())


def _meaning(row: Mapping[str, Any]) -> str:
    return str(row.get("state") or row.get("source") or row.get("kind") or row.get("vm_name") or "")
