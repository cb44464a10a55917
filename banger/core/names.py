"""Ids and names: their format, how they are generated, and what is refused."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection

from banger.core.errors import BangerError, ErrorKind

VM_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}\Z")
VM_NAME_RULE = "1 to 40 of a-z, 0-9 and '-', starting with a letter"
#: Image and kernel names may look like references (``python:3.12-slim``, ``ghcr.io/org/app:1``).
ARTIFACT_NAME = re.compile(r"[a-z0-9][a-z0-9._:/@-]{0,254}\Z")
#: What hostname(7) admits, and the underscore that other tools let pass. Linux itself takes 64 bytes.
HOSTNAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")
ID_LENGTH = 12
#: Begins every line that a VM's forwarder of published ports writes to the log of its VMM.
PORTS_LOG_PREFIX = "banger-ports: "
_ATTEMPTS = 100
#: RFC 1123 section 2.1, in lower case.
_DNS_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
DNS_SUFFIX = re.compile(rf"(?=.{{1,100}}\Z){_DNS_LABEL}(?:\.{_DNS_LABEL})*\Z")

_ADJECTIVES = """
able agile amber ample apt azure bold brave brief bright brisk calm candid clean clear clever cosy crisp
daring deft eager early easy epic fair fast fine firm fleet fond frank free fresh gentle glad golden grand
happy hardy honest humble ideal jolly keen kind lively loyal lucid lucky mellow merry mild neat nimble noble
novel patient plain polite prime proud pure quick quiet rapid ready robust royal rustic sage sharp silent
simple sleek smart smooth snug solar solid sound spry steady still sunny sure swift tidy true upbeat valid
vivid warm wise witty young zesty
""".split()
_NOUNS = """
acorn alder arch aspen badger basin bay beacon beech birch bison breeze bridge brook cabin canyon cedar
cliff cloud cove crane creek crow cypress dale dawn delta dove dune eagle elm ember falcon fern field finch fjord
forest fox garden glade glen grove harbor hare hawk hazel heath heron hill inlet ivy jay juniper kestrel lagoon
lake lark laurel ledge lily linden lotus lynx maple marsh meadow mesa moor moss oak orchid otter owl palm peak
pebble pine plover pond poplar prairie quail quartz rain raven reef ridge river robin sage shore sky sparrow
spruce stone stream summit swan thicket thrush tide trail tulip vale valley wave willow wolf wren
""".split()


def new_id() -> str:
    """Twelve random lower-case hexadecimal digits: an object's id, unique on a host in practice."""
    return secrets.token_hex(ID_LENGTH // 2)


def vmm_marker(vm_id: str) -> str:
    """What the command line of a VM's VMM contains, so that the process is found even if its pid was lost."""
    return f"banger-vm-{vm_id}"


def saver_marker(vm_id: str) -> str:
    """The same for a process that helps to save a VM's machine, and is no VMM of it."""
    return f"banger-saver-{vm_id}"


def made_up_name(taken: Collection[str] = ()) -> str:
    """An adjective-noun name for a VM that was given none, with a few digits where too many are ``taken``."""
    name = ""
    for _ in range(_ATTEMPTS):
        name = f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}"
        if name not in taken:
            return name
    return f"{name}-{new_id()[:4]}"


def check_vm_name(name: str) -> str:
    """Return ``name`` if it may name a VM; raises a ``usage`` error otherwise."""
    return _check(name, VM_NAME, "VM", f"use {VM_NAME_RULE}")


def near_vm_name(name: str) -> str:
    """What ``name`` becomes as the name of a VM: itself, or one that is allowed; ``""`` stays empty.

    Names are also names in the DNS: it knows no ``_``, and ``Web`` would be ``web``.
    """
    if not name or VM_NAME.match(name):
        return name
    near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return (near if near[:1].isalpha() else f"vm-{near}")[:40].strip("-")


def check_hostname(name: str) -> str:
    """Return ``name`` if a guest may call itself so; raises a ``usage`` error otherwise."""
    return _check(name, HOSTNAME, "host", "use 1 to 63 of letters, digits, '-', '_' and '.', none of '-_.' at an end")


def check_home_name(name: str) -> str:
    """Return ``name`` if it may name a home disk; raises a ``usage`` error otherwise."""
    return _check(name, VM_NAME, "home disk", f"use {VM_NAME_RULE}")


def check_artifact_name(name: str, noun: str) -> str:
    """Return ``name`` if it may name an image or a kernel (``noun``); raises a ``usage`` error otherwise."""
    return _check(name, ARTIFACT_NAME, noun, "use lower-case letters, digits and . _ : / @ -, at most 255")


def check_snapshot_name(name: str) -> str:
    """Return ``name`` if it may name a snapshot; raises a ``usage`` error otherwise."""
    return _check(name, VM_NAME, "snapshot", f"use {VM_NAME_RULE}")


def check_dns_suffix(suffix: str) -> str:
    """Return ``suffix`` if names of VMs may end with it (``vm``, ``lab.example.org``); raises ``usage`` otherwise."""
    if not DNS_SUFFIX.match(suffix):
        message = f'"{suffix}" is not a valid value for dns.suffix'
        hint = "use lower-case letters, digits and '-', in parts separated by dots: vm"
        raise BangerError(ErrorKind.USAGE, message, subject="dns.suffix", hint=hint)
    return suffix


def check_guest_path(path: str) -> str:
    """The path itself if it is an absolute one that a system call takes; raises ``usage`` if not."""
    if not path.startswith("/"):
        raise BangerError(ErrorKind.USAGE, f'"{path}" is not an absolute path in the guest', subject=path)
    if "\0" in path:
        raise BangerError(ErrorKind.USAGE, "a path cannot hold a NUL character", subject=path.replace("\0", "\\0"))
    return path


def _check(name: str, pattern: re.Pattern[str], noun: str, rule: str) -> str:
    if not name:
        raise BangerError(ErrorKind.USAGE, f"the {noun} name is empty", hint=rule)
    if not pattern.match(name):
        raise BangerError(ErrorKind.USAGE, f'"{name}" is not a valid {noun} name', subject=name, hint=rule)
    return name
