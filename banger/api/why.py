"""``GET /v1/vms/QUERY/why``: everything that helps to understand why a VM is as it is, in one answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from banger.api.context import ApiContext, context_of
from banger.api.views import vm_view
from banger.api.vms import find_vm
from banger.core import codec
from banger.core.models import Vm
from banger.core.why import next_step, sentence

#: How much of each log is shown, in lines.
LOG_LINES = 20
_TAIL_BYTES = 16 * 1024


async def why(request: Request) -> Response:
    """One VM: its state in words, the last lines of its logs, its ledger, the times of its last start."""
    context, vm = context_of(request), find_vm(request)
    return JSONResponse(await asyncio.to_thread(_explain, context, vm))


def _explain(context: ApiContext, vm: Vm) -> dict[str, Any]:
    directory = context.layout.vm_dir(vm.id)
    handles = context.ledger.of(vm.id).of()
    return {
        "vm": vm_view(context, vm),
        "why": sentence(vm),
        "next": next_step(vm, leftovers=len(handles)),
        "exit_reason": vm.exit_reason.value,
        "handles": [codec.to_plain(handle) for handle in handles],
        "console": last_lines(directory / "console.log"),
        "vmm_log": last_lines(directory / "vmm.log"),
    }


def last_lines(path: Path, count: int = LOG_LINES) -> list[str]:
    """The last lines of a log that say something."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.strip()][-count:]
