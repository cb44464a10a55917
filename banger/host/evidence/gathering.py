"""Making an evidence record, without secrets, from what the owner knows and the VM's directory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from banger import __version__
from banger.core import clock
from banger.core.evidence import COMMAND_FILE, Evidence, Incident
from banger.core.models import ExitReason, Image, Kernel
from banger.core.names import new_id
from banger.core.ports.host import Handle
from banger.core.redaction import redactor, secrets_of, spec_without_secrets, words_without_secrets
from banger.layout import Layout

#: Of a log that is longer, its begin and its end are kept: a boot goes wrong early, an exit is told at the end.
HEAD_BYTES, TAIL_BYTES = 16 * 1024, 48 * 1024
_LINE_BYTES = 4096
_HANDLES = 100
_ARGUMENTS = 300
_CUT = "\n[…]\n"


def gather(layout: Layout, incident: Incident) -> Evidence:
    """Make the record. What cannot be read is left out: half the evidence is better than none."""
    vm, directory = incident.vm, layout.vm_dir(incident.vm.id)
    redact = redactor(secrets_of(vm.spec, incident.image))
    version, command = _command(directory / COMMAND_FILE)
    error, ended = incident.error, incident.ended
    return Evidence(
        id=new_id(),
        at=clock.now(),
        happened=incident.happened,
        vm=replace(vm, spec=spec_without_secrets(vm.spec, redact), reason=redact(vm.reason)),
        words=redact(incident.words)[:_LINE_BYTES],
        cause=redact(error.cause)[:_LINE_BYTES] if error else "",
        hint=redact(error.hint)[:_LINE_BYTES] if error else "",
        error_kind=error.kind.value if error else "",
        exit_reason=ended.reason if ended else ExitReason.NONE,
        exit_status=ended.status if ended else None,
        accelerator=incident.accelerator or vm.accelerator,
        image=_image(incident.image, vm.image_id, redact),
        kernel=_kernel(incident.kernel, vm.kernel_id, redact),
        versions={"banger": __version__, "vmm": version, "host": f"{os.uname().sysname} {os.uname().release}"},
        steps=incident.steps or vm.timings,
        handles=tuple(_handle(one, redact) for one in incident.handles[:_HANDLES]),
        command=tuple(word[:_LINE_BYTES] for word in words_without_secrets(command[:_ARGUMENTS], redact)),
        error_counters=incident.error_counters,
        console=redact(_part(directory / "console.log", _offset(incident.handles, "offset"))),
        vmm_log=redact(_part(directory / "vmm.log", _offset(incident.handles, "vmm_log_offset"))),
    )


def _image(image: Image | None, image_id: str, redact: Callable[[str], str]) -> Mapping[str, str]:
    if image is None:
        return {"id": image_id} if image_id else {}
    return {"id": image.id, "name": redact(image.name), "digest": image.digest, "source": redact(image.source)}


def _kernel(kernel: Kernel | None, kernel_id: str, redact: Callable[[str], str]) -> Mapping[str, str]:
    if kernel is None:
        return {"id": kernel_id} if kernel_id else {}
    return {
        "id": kernel.id, "name": kernel.name, "version": kernel.version, "digest": kernel.digest,
        "source": redact(kernel.source), "format": kernel.format, "arguments": redact(kernel.cmdline),
    }  # fmt: skip


def _handle(handle: Handle, redact: Callable[[str], str]) -> Mapping[str, str]:
    detail = json.dumps(dict(handle.detail), sort_keys=True, default=str) if handle.detail else ""
    return {
        "kind": handle.kind,
        "key": redact(handle.key),
        "state": handle.state,
        "detail": redact(detail)[:_LINE_BYTES],
    }


def _offset(handles: tuple[Handle, ...], name: str) -> int:
    """Where the last boot's part of a log begins, as its ledger tells."""
    offsets = [handle.detail.get(name, 0) for handle in handles if handle.kind == "console"]
    return max((offset for offset in offsets if isinstance(offset, int)), default=0)


def _part(path: Path, since: int) -> str:
    """A log from an offset on; if that is long, its begin and its end."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = since if since <= size else 0  # it was cut meanwhile
            file.seek(start)
            if size - start <= HEAD_BYTES + TAIL_BYTES:
                return file.read(HEAD_BYTES + TAIL_BYTES).decode(errors="replace")
            # Whole lines: half of a secret would not be known for one.
            head = file.read(HEAD_BYTES)
            head = head[: head.rfind(b"\n") + 1 or None]
            file.seek(size - TAIL_BYTES)
            tail = file.read(TAIL_BYTES)
            tail = tail[tail.find(b"\n") + 1 :]
            return head.decode(errors="replace") + _CUT + tail.decode(errors="replace")
    except OSError:
        return ""


def _command(path: Path) -> tuple[str, list[str]]:
    """The version of the VMM and its command line."""
    try:
        noted = json.loads(path.read_bytes())
        return str(noted["version"]), [str(word) for word in noted["argv"]]
    except (OSError, ValueError, KeyError, TypeError):
        return "", []
