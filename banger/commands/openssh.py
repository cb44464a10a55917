"""OpenSSH's files: a section of ssh_config, the line that includes it, lines of known_hosts. Pure."""

from __future__ import annotations

import glob
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind

HEADER = "# Written by `banger ssh-config --install`: changes are lost."
#: Names in known_hosts that are kept; the oldest go. VMs are disposable, and so are most of their names.
_MOST_HOSTS = 500
_HOST = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")


def section(
    suffix: str, command: Sequence[str], environment: Mapping[str, str], private_key: Path, known_hosts: Path
) -> str:
    """The ``Host`` section for every VM of one installation, by name.

    What it sets applies before anything that the user's configuration says for all hosts. The host name goes through a
    shell, which older OpenSSH does not check it for: names with a quote are nobody's.

    Args:
        suffix: what the names end with.
        command: runs ``banger``.
        environment: what that needs to be about this installation.
        private_key: opens every VM.
        known_hosts: file that the proxy keeps true.

    Raises:
        BangerError: ``invalid`` for a path that ssh_config(5) cannot express.
    """
    proxy = proxy_command(command, environment)
    _check(proxy)
    settings = {
        "HostName": "%h",
        "Port": "22",
        "User": "root",
        "ProxyCommand": proxy.replace("%", "%%") + " '%h'",
        "ProxyUseFdpass": "yes",
        "IdentityFile": quoted_path(private_key),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": quoted_path(known_hosts),
        "GlobalKnownHostsFile": "none",
        "UpdateHostKeys": "no",
        "CheckHostIP": "no",
        "CanonicalizeHostname": "no",
        "ForwardAgent": "no",
        "ForwardX11": "no",
    }
    lines = "".join(f"    {key} {value}\n" for key, value in settings.items())
    return f"{HEADER}\n{_host_line(suffix)}\n{lines}"


def proxy_command(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a shell runs to connect to the VM whose name comes behind it."""
    words = ["env", *(f"{name}={value}" for name, value in environment.items())] if environment else []
    return shlex.join([*words, *command, "ssh-proxy", "--"])


def _host_line(suffix: str) -> str:
    return f'Host *.{suffix} "!*.*.{suffix}" "!*\'*"'


def serves(section_text: str, suffix: str) -> bool:
    """True for a section that banger wrote, this installation or another, for names with this suffix."""
    lines = section_text.splitlines()
    return HEADER in lines and _host_line(suffix) in lines


def quoted_path(path: Path) -> str:
    """A path as one word of ssh_config(5): quotes and ``%`` tokens escaped.

    Raises:
        BangerError: ``invalid`` for a path with ``${``, which has no escape, or with characters that end a line.
    """
    text = str(path)
    if "${" in text:
        raise _refusal(text)
    _check(text)
    return '"' + _escaped(text).replace("%", "%%") + '"'


def include_line(path: Path) -> bytes:
    """The line, with newline, that makes ssh read ``path``.

    Raises:
        BangerError: ``invalid`` for a path with ``%`` or ``$``, which only some versions of OpenSSH expand here, or
            with a backslash, which is read twice.
    """
    text = str(path)
    if any(c in text for c in "%$\\"):
        raise _refusal(text)
    _check(text)
    return f'Include "{_escaped(glob.escape(text))}"\n'.encode()


def included_paths(config: bytes) -> list[Path]:
    """Every path that a line like ours includes."""
    found = re.findall(rb'^Include "(/.*)"\r?$', config, re.MULTILINE)
    unescaped = (re.sub(r"\\(.)", r"\1", path.decode(errors="surrogateescape")) for path in found)
    return [Path(re.sub(r"\[([*?[])\]", r"\1", path)) for path in unescaped]


def with_line(config: bytes, line: bytes) -> bytes:
    """``config`` with ``line`` in it: in front, because an ``Include`` below a ``Host`` line belongs to that host."""
    return config if line in config.splitlines(keepends=True) else line + config


def without_line(config: bytes, line: bytes) -> bytes:
    """``config`` as it was before :func:`with_line`, whatever was changed around the line since."""
    lines = config.splitlines(keepends=True)
    if line in lines:
        lines.remove(line)
    return b"".join(lines)


def with_host_key(known_hosts: str, host: str, key: str) -> str:
    """``known_hosts`` in which ``host`` has this key and no other; ``key`` is a public key line."""
    line = f"{host} {' '.join(key.split()[:2])}"
    others = [other for other in known_hosts.splitlines() if other.split(" ", 1)[0] != host]
    return "".join(f"{kept}\n" for kept in [*others, line][-_MOST_HOSTS:])


def check_host(host: str) -> str:
    """Return ``host`` if it can be the name of a VM with a suffix behind it; raises ``usage`` otherwise."""
    if not _HOST.fullmatch(host):
        message = f'"{host}" is not the name of a VM'
        raise BangerError(ErrorKind.USAGE, message, subject=host, hint="ssh NAME.vm; see banger vm list")
    return host


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _check(text: str) -> None:
    if not text.isprintable():
        raise _refusal(text)


def _refusal(text: str) -> BangerError:
    hint = "set BANGER_HOME to a directory with a plain name"
    return BangerError(ErrorKind.INVALID, f'ssh cannot be given the path "{text}"', subject=text, hint=hint)
