"""An evidence record as one file for a bug report. Equal records give equal bytes."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

from banger.core import codec
from banger.core.evidence import Evidence, next_step, sentence
from banger.core.redaction import without_homes

_TEXTS = ("console", "vmm_log", "command")


def archive(evidence: Evidence) -> bytes:
    """A ``tar.gz`` with one directory: a summary, the record as JSON, and its long texts as files of their own."""
    plain = codec.to_plain(evidence)
    record = {name: value for name, value in plain.items() if name not in _TEXTS}
    files = {
        "summary.txt": _summary(evidence),
        "evidence.json": json.dumps(record, ensure_ascii=False, indent=2, sort_keys=True) + "\n",
        "command.txt": "".join(f"{word}\n" for word in evidence.command),
        "console.log": evidence.console,
        "vmm.log": evidence.vmm_log,
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, text in files.items():
            content = without_homes(text).encode(errors="replace")
            member = tarfile.TarInfo(f"banger-evidence-{evidence.id}/{name}")
            member.size, member.mode, member.mtime = len(content), 0o600, int(evidence.at.timestamp())
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)


def _summary(evidence: Evidence) -> str:
    lines = [
        f"VM {evidence.vm.name} ({evidence.vm.id}), {codec.to_plain(evidence.at)}",
        sentence(evidence),
        *evidence.cause.splitlines(),
        f"next: {next_step(evidence)}",
        *(f"{name}: {version}" for name, version in sorted(evidence.versions.items())),
        f"accelerator: {evidence.accelerator or 'none was used'}",
    ]
    return "".join(f"{line}\n" for line in lines)
