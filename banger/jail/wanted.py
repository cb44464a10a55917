"""What is asked of the jail, as words of a command line."""

from __future__ import annotations

from banger.jail.failure import JailError

_MOST_ID = 0xFFFFFFFE  # the last one means "unchanged"
_MOST_DESCRIPTOR = 0x7FFFFFFF
_MOST_BYTES = 1 << 40
#: How many words follow an option.
_WORDS = {
    "--cgroup": 1, "--enter": 1, "--open": 3, "--listen": 2, "--tap": 2, "--keep": 1, "--user-namespace": 0,
    "--no-network": 0, "--root": 0, "--visible": 1, "--device": 1, "--user": 2, "--process-namespace": 0,
    "--scratch": 2, "--put": 3, "--lend-tap": 1, "--own-tap": 1, "--jailer": 0, "--end-with-parent": 0,
}  # fmt: skip
_HANDED = ("--open", "--listen", "--tap", "--keep")


class Wanted:
    """What is asked for. Paths are the caller's until the namespaces are entered.

    Attributes:
        cgroup: the ``cgroup.procs`` of the one to enter; empty for none.
        enter: namespaces to enter, in this order.
        handed: options that name what is opened, each with its words.
        lent_taps: names of taps that the user may attach to.
        own_tap: the descriptor of a tap that is nobody else's; -1 for none.
        has_process_namespace: as process 1 of one.
        has_user_namespace: in one of its own, for those who are not root.
        has_no_network: in an empty network namespace.
        has_root: with a root directory of its own.
        visible: absolute paths that are seen in it, read-only.
        devices: absolute paths of device nodes in it.
        scratch: an absolute path in it where an empty directory is that can be written, and how many bytes that takes.
        put: what is seen at another place: ``read`` or ``write``, the path, the absolute path in the new root.
        uid: the user to become; 0 for none.
        gid: its group.
        is_jailer: the program becomes that user itself.
        ends_with_parent: it is killed when the thread that started it ends.
        program: what to execute, and its arguments.
    """

    def __init__(self) -> None:
        self.cgroup = ""
        self.enter: list[str] = []
        self.handed: list[tuple[str, list[str]]] = []
        self.lent_taps: list[str] = []
        self.own_tap = -1
        self.has_process_namespace = self.has_user_namespace = self.has_no_network = self.has_root = False
        self.visible: list[str] = []
        self.devices: list[str] = []
        self.scratch = ("", 0)
        self.put: list[tuple[str, str, str]] = []
        self.uid = self.gid = 0
        self.is_jailer = self.ends_with_parent = False
        self.program: list[str] = []


def read(words: list[str]) -> Wanted:
    """Understand a command line. Raises :class:`JailError`. Pure."""
    wanted = Wanted()
    at = 0
    while at < len(words) and words[at] != "--":
        option = words[at]
        if option not in _WORDS:
            raise JailError(f'no such option: "{option}"')
        end = at + 1 + _WORDS[option]
        _take(wanted, option, words[at + 1 : end])
        at = end
    wanted.program = words[at + 1 :]
    if not wanted.program:
        raise JailError('no program: "--"')
    return wanted


def _take(wanted: Wanted, option: str, words: list[str]) -> None:
    if len(words) < _WORDS[option]:
        raise JailError(f'too few words after: "{option}"')
    if option in _HANDED:
        number(words[0], _MOST_DESCRIPTOR)
        wanted.handed.append((option, words))
    elif option == "--cgroup":
        wanted.cgroup = words[0]
    elif option == "--enter":
        wanted.enter.append(words[0])
    elif option == "--visible":
        wanted.visible.append(_absolute(words[0]))
    elif option == "--device":
        wanted.devices.append(_absolute(words[0]))
    elif option == "--scratch":
        wanted.scratch = _absolute(words[0]), number(words[1], _MOST_BYTES)
    elif option == "--put":
        wanted.put.append((_mode(words[0]), _absolute(words[1]), _absolute(words[2])))
    elif option == "--lend-tap":
        wanted.lent_taps.append(words[0])
    elif option == "--own-tap":
        wanted.own_tap = number(words[0], _MOST_DESCRIPTOR)
    elif option == "--user":
        wanted.uid, wanted.gid = number(words[0], _MOST_ID), number(words[1], _MOST_ID)
        if not wanted.uid or not wanted.gid:
            raise JailError(f'that is root: "{words[0]}"')
    else:
        wanted.has_process_namespace |= option == "--process-namespace"
        wanted.is_jailer |= option == "--jailer"
        wanted.ends_with_parent |= option == "--end-with-parent"
        wanted.has_user_namespace |= option == "--user-namespace"
        wanted.has_no_network |= option == "--no-network"
        wanted.has_root |= option == "--root"


def number(word: str, most: int) -> int:
    """A descriptor, a user, a group or a size. Raises :class:`JailError`."""
    if not (word.isascii() and word.isdigit()) or int(word) > most:
        raise JailError(f'not a number in range: "{word}"')
    return int(word)


def _mode(word: str) -> str:
    if word not in ("read", "write"):
        raise JailError(f'no such mode: "{word}"')
    return word


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise JailError(f'not an absolute path: "{path}"')
    return path
