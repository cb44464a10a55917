"""Routes that explain why a VM stopped or failed: from its row and files, or from kept evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from banger.api.context import ApiContext, context_of
from banger.api.views import vm_view
from banger.core import codec
from banger.core.boot_causes import telling_lines
from banger.core.errors import BangerError, ErrorKind
from banger.core.evidence import Evidence, Happened, Incident
from banger.core.evidence import next_step as next_step_after
from banger.core.evidence import sentence as sentence_of
from banger.core.models import Vm
from banger.core.states import LIVE
from banger.core.why import next_step, sentence
from banger.host.evidence.archive import archive
from banger.host.evidence.gathering import gather

#: How much of each log is shown, in lines.
LOG_LINES = 20
_TAIL_BYTES = 16 * 1024
_TEXTS = ("console", "vmm_log")


async def why(request: Request) -> Response:
    """One VM: its state in words, the last lines of its logs, what its VMM counted, its ledger, its last start's times.

    Of a VM that is gone, the same from the newest evidence; that may be asked for by its own id too.
    """
    return JSONResponse(await asyncio.to_thread(_explain, context_of(request), request.path_params["query"]))


async def why_archive(request: Request) -> Response:
    """The same as one ``tar.gz`` for a bug report, without secrets."""
    evidence = await asyncio.to_thread(_newest, context_of(request), request.path_params["query"])
    name = f'attachment; filename="banger-evidence-{evidence.id}.tar.gz"'
    packed = await asyncio.to_thread(archive, evidence)
    return Response(packed, media_type="application/gzip", headers={"Content-Disposition": name})


async def list_evidence(request: Request) -> Response:
    """What is kept, the newest first."""
    records = await asyncio.to_thread(context_of(request).vms.evidence.all)
    return JSONResponse([_head(one) for one in records])


async def show_evidence(request: Request) -> Response:
    """One record in full: by its id, or the newest of a VM."""
    context, query = context_of(request), request.path_params["query"]
    records = await asyncio.to_thread(context.vms.evidence.of, query)
    return JSONResponse(codec.to_plain(records[0]))


def _explain(context: ApiContext, query: str) -> dict[str, Any]:
    try:
        return _explain_vm(context, context.store.vms.find(query))
    except BangerError as error:
        if error.kind is not ErrorKind.NOT_FOUND or not (records := _kept(context, query)):
            raise
        return _explain_evidence(records)


def _explain_vm(context: ApiContext, vm: Vm) -> dict[str, Any]:
    directory = context.layout.vm_dir(vm.id)
    handles = context.vms.ledger.of(vm.id).of()
    records = [one for one in context.vms.evidence.all() if one.vm.id == vm.id]
    return {
        "vm": vm_view(context, vm),
        "why": sentence(vm),
        "next": next_step(vm, leftovers=len(handles)),
        "exit_reason": vm.exit_reason.value,
        "handles": [codec.to_plain(handle) for handle in handles],
        "console": said(_tail(directory / "console.log")),
        "vmm_log": _last(_tail(directory / "vmm.log")),
        "error_counters": dict(context.vms.error_counters(vm)),
        "evidence": _facts(records[0]) if records else None,
        "others": [_head(one) for one in records[1:]],
    }


def _explain_evidence(records: Sequence[Evidence]) -> dict[str, Any]:
    newest = records[0]
    return {
        "vm": {**codec.to_plain(newest.vm), "state": "gone", "timings": codec.to_plain(newest.steps)},
        "why": sentence_of(newest),
        "next": next_step_after(newest),
        "exit_reason": newest.exit_reason.value,
        "handles": codec.to_plain(newest.handles),
        "console": said(newest.console),
        "vmm_log": _last(newest.vmm_log),
        "error_counters": dict(newest.error_counters),
        "evidence": _facts(newest),
        "others": [_head(one) for one in records[1:]],
    }


def _newest(context: ApiContext, query: str) -> Evidence:
    """What is known of a VM: how it went wrong, or how it is now."""
    try:
        vm = context.store.vms.find(query)
    except BangerError as error:
        if error.kind is not ErrorKind.NOT_FOUND or not (records := _kept(context, query)):
            raise
        return records[0]
    kept = [] if vm.state in LIVE else [one for one in context.vms.evidence.all() if one.vm.id == vm.id]
    return kept[0] if kept else gather(context.layout, _incident_of(context, vm))


def _incident_of(context: ApiContext, vm: Vm) -> Incident:
    return Incident(
        happened=Happened.ASKED,
        vm=vm,
        words=sentence(vm),
        image=context.store.images.get(vm.image_id),
        kernel=context.store.kernels.get(vm.kernel_id),
        handles=tuple(context.vms.ledger.of(vm.id).of()),
    )


def _kept(context: ApiContext, query: str) -> list[Evidence]:
    """The evidence that is meant; empty if there is none, so that the error about the VM stands."""
    try:
        return context.vms.evidence.of(query)
    except BangerError as error:
        if error.kind is ErrorKind.NOT_FOUND:
            return []
        raise


def _head(evidence: Evidence) -> dict[str, Any]:
    """A record in a list."""
    return {
        "id": evidence.id,
        "at": codec.to_plain(evidence.at),
        "vm_id": evidence.vm.id,
        "vm": evidence.vm.name,
        "happened": evidence.happened.value,
        "words": evidence.words,
    }


def _facts(evidence: Evidence) -> dict[str, Any]:
    """A record without its logs, of which the answer has the end already."""
    return {name: value for name, value in codec.to_plain(evidence).items() if name not in (*_TEXTS, "vm")}


def said(console: str) -> Sequence[str]:
    """The last lines of a console that say something; after a crash they are not those of its stack trace."""
    return telling_lines(console, LOG_LINES) if "Call Trace:" in console else _last(console)


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _last(text: str) -> Sequence[str]:
    return [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.strip()][-LOG_LINES:]
