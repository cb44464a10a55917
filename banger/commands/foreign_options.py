"""Options of other tools that banger does not have, with suggestions. Pure.

The sources are the command lines of Docker, Podman, Lima, Multipass and virsh.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

_OWN_KERNEL = "a VM has a kernel of its own, on which its root has every right"
_OWN_LIMITS = "limits inside a VM are its guest's own to set"
_OWN_NETWORK = "a VM has a network of its own, with its names and addresses"
_CONSOLE = "what a guest says on its console is always kept"
_COPIES = "directories are copied whole, with their modes and links"
_LEFT_RUNNING = "what a command leaves in the background goes on: sh -c 'COMMAND >/dev/console 2>&1 &'"
_ALL_LISTED = "every one is listed"
_NO_SHARES = "a VM shares no directory with its host, files are copied"
_KEPT = "a VM keeps its disk when it is stopped; --home-disk keeps its /root for the next"


class Foreign(NamedTuple):
    """What stands for a foreign option: ours, or nothing; whether it has a value; why it is not there."""

    instead: str = ""
    valued: bool = True
    why: str = ""


def _left_out(options: str, why: str, *, valued: bool = True) -> dict[str, Foreign]:
    return {option: Foreign("", valued, why) for option in options.split()}


#: By option, or by verb and option.
OPTIONS: Mapping[str, Foreign] = {
    **_left_out("--cap-add --cap-drop --security-opt --userns --pid --ipc --uts --cgroupns --runtime", _OWN_KERNEL),
    **_left_out("--device --gpus --group-add --annotation --isolation --cgroup-parent", _OWN_KERNEL),
    **_left_out("--ulimit --sysctl --shm-size --tmpfs --pids-limit --memory-swap --memory-reservation", _OWN_LIMITS),
    **_left_out("--cpu-shares --cpuset-cpus --cpu-quota --cpu-period --oom-score-adj --blkio-weight", _OWN_LIMITS),
    **_left_out("--oom-kill-disable --read-only --no-healthcheck", _OWN_LIMITS, valued=False),
    **_left_out("--add-host --dns --dns-search --dns-option --ip --ip6 --mac-address --link --expose", _OWN_NETWORK),
    **_left_out("--domainname --network-alias --net-alias", _OWN_NETWORK),
    **_left_out("--publish-all -P", "ports are published one by one, with --publish", valued=False),
    **_left_out("--log-driver --log-opt", _CONSOLE),
    **_left_out("--since --until", _CONSOLE),
    **_left_out("--timestamps", _CONSOLE, valued=False),
    **_left_out("--sig-proxy", "signals are always passed on", valued=False),
    **_left_out("--attach --detach-keys", "all three streams are always attached"),
    **_left_out("--cidfile --stop-signal --health-cmd --health-interval --health-timeout", ""),
    **_left_out("--no-trunc --latest", _ALL_LISTED, valued=False),
    **_left_out("--last", _ALL_LISTED),
    "--net": Foreign("--network"),
    "--ram": Foreign("--memory"),
    "--mem": Foreign("--memory"),
    "--vcpus": Foreign("--cpus"),
    "--cpu": Foreign("--cpus"),
    "run -c": Foreign("--cpus"),
    "create -c": Foreign("--cpus"),
    "--port": Foreign("--publish"),
    "--ports": Foreign("--publish"),
    "--expose-port": Foreign("--publish"),
    "--disk-size": Foreign("--disk"),
    "--cwd": Foreign("--workdir"),
    "--background": Foreign("--detach", valued=False),
    "--daemon": Foreign("--detach", valued=False),
    "--remove": Foreign("--rm", valued=False),
    "--ephemeral": Foreign("--rm", valued=False),
    "--environment": Foreign("--env"),
    "--yes": Foreign("", valued=False),
    "-y": Foreign("", valued=False),
    **dict.fromkeys(("exec -d", "exec --detach", "shell -d"), Foreign("", valued=False, why=_LEFT_RUNNING)),
    "run -a": Foreign("", why="all three streams are always attached"),
    "logs -t": Foreign("", valued=False, why=_CONSOLE),
    "ps -n": Foreign("", why=_ALL_LISTED),
    "ps -l": Foreign("", valued=False, why=_ALL_LISTED),
    "list -n": Foreign("", why=_ALL_LISTED),
    "start -a": Foreign("", valued=False, why="a started VM runs no command; banger exec does"),
    "start -i": Foreign("", valued=False, why="a started VM runs no command; banger exec does"),
    "kill -s": Foreign("", why="the whole machine ends; banger exec NAME -- kill sends a signal in it"),
    "kill --signal": Foreign("", why="the whole machine ends; banger exec NAME -- kill sends a signal in it"),
    "rm -v": Foreign("", valued=False, why="its disk goes with it, its home disk unless --keep-home is given"),
    "delete -v": Foreign("", valued=False, why="its disk goes with it, its home disk unless --keep-home is given"),
    "--volumes": Foreign("", valued=False, why="its disk goes with it, its home disk unless --keep-home is given"),
    "cp -r": Foreign("", valued=False, why=_COPIES),
    "cp -R": Foreign("", valued=False, why=_COPIES),
    "cp -p": Foreign("", valued=False, why=_COPIES),
    "cp --recursive": Foreign("", valued=False, why=_COPIES),
}


def what_to_type(
    arguments: Sequence[str], verb: str, option: str, known: Collection[str]
) -> tuple[str, Sequence[str] | None]:
    """Why an option is not there, and the command line without or instead of it, if that can be told.

    Args:
        arguments: all that was typed behind ``banger``.
        verb: the last word of the command.
        option: the unknown one, with its dashes.
        known: the options of the command.
    """
    place = _find(arguments, option)
    if place is None:
        return "", None
    i, inside = place
    if inside and f"-{arguments[i]}" in known:  # -name
        return "", [*arguments[:i], f"-{arguments[i]}", *arguments[i + 1 :]]
    attached = arguments[i][len(option) + 1 :] if arguments[i].startswith(f"{option}=") else None
    following = attached if attached is not None else next(iter(arguments[i + 1 :]), "")
    if option in ("-v", "--volume", "--mount") and verb in ("run", "create"):
        without = _replaced(arguments, place, option, Foreign(), known)
        return _instead_of_share(arguments, following, without)
    if option in ("--format", "-o", "--output"):
        foreign = Foreign("--json") if following == "json" else Foreign("", why="--json has every field")
        return foreign.why, _replaced(arguments, place, option, foreign, known)
    if option in ("--filter", "-f") and verb in ("ps", "ls", "list"):
        return _filtered(arguments, i, following)
    if option == "--platform":
        return "a platform is chosen when an image is fetched", ["image", "pull", "--platform", following, "IMAGE"]
    close = get_close_matches(option, known, n=1) if option.startswith("--") else []
    found = OPTIONS.get(f"{verb} {option}") or OPTIONS.get(option) or (Foreign(close[0]) if close else None)
    if found is None or (found.instead and found.instead not in known):
        return "", None
    return found.why, _replaced(arguments, place, option, found, known)


def without_value(arguments: Sequence[str], option: str) -> Sequence[str] | None:
    """``--rm=true`` as ``--rm``, and ``--rm=false`` as nothing."""
    place = next((i for i, word in enumerate(arguments) if word.startswith(f"{option}=")), None)
    if place is None:
        return None
    value = arguments[place].partition("=")[2].lower()
    kept = [option] if value in ("true", "1", "yes", "on", "") else []
    return [*arguments[:place], *kept, *arguments[place + 1 :]]


def _find(arguments: Sequence[str], option: str) -> tuple[int, bool] | None:
    """Where an option was typed, and whether among other letters: ``-itv``."""
    for i, word in enumerate(arguments):
        if word == "--":
            break
        if word == option or word.startswith(f"{option}="):
            return i, False
        letters = word.startswith("-") and not word.startswith("--") and len(option) == 2
        if letters and option[1] in word.partition("=")[0]:
            return i, True
    return None


def _replaced(
    arguments: Sequence[str], place: tuple[int, bool], option: str, foreign: Foreign, known: Collection[str]
) -> Sequence[str]:
    """The command line with something else in one place; its value goes with it or stays."""
    i, inside = place
    drop_value = not foreign.instead or foreign.instead == "--json"
    word = arguments[i]
    attached = word[len(option) :] if not inside and word.startswith(f"{option}=") else ""
    rest = arguments[i + 1 :]
    if drop_value and foreign.valued and not attached:
        rest = rest[1:]
    letters = "".join(letter for letter in word[1:] if f"-{letter}" in known) if inside else ""
    kept = [f"-{letters}"] if letters else []
    put = [foreign.instead + ("" if drop_value else attached)] if foreign.instead else []
    return [*arguments[:i], *kept, *put, *rest]


def _instead_of_share(arguments: Sequence[str], value: str, without: Sequence[str]) -> tuple[str, Sequence[str] | None]:
    """``-v ./src:/w`` and its long form: copying; a volume that has only a name is told apart."""
    fields = dict(part.partition("=")[::2] for part in value.split(",")) if "=" in value else {}
    source, _, target = value.partition(":")
    source = fields.get("source", fields.get("src", source))
    target = fields.get("target", fields.get("destination", fields.get("dst", target.partition(":")[0])))
    if not source.startswith((".", "/", "~")):
        return _KEPT, without
    named = [arguments[i + 1] for i, word in enumerate(arguments[:-1]) if word == "--name"]
    named += [word.partition("=")[2] for word in arguments if word.startswith("--name=")]
    return _NO_SHARES, ["vm", "cp", source, f"{(named or ['NAME'])[0]}:{target or '/'}"]


def _filtered(arguments: Sequence[str], i: int, value: str) -> tuple[str, Sequence[str] | None]:
    key, _, wanted = value.partition("=")
    ours = {"status": ["--state", wanted], "label": ["--label", wanted]}.get(key, [])
    after = arguments[i + 1 :] if "=" in arguments[i] and arguments[i].startswith("--") else arguments[i + 2 :]
    return "" if ours else "VMs are chosen by --state and --label", [*arguments[:i], *ours, *after]
