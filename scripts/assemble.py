"""Assemble the program that guests run as the last step of every command: ``become.s`` to ``become.hex``.

Needs GNU binutils. Run it after a change of the source; a test says when that was forgotten.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "banger" / "guest" / "data" / "become.s"
LINE_BYTES = 32


def assemble(source: Path) -> str:
    """The code as lines of hexadecimal digits."""
    with tempfile.TemporaryDirectory() as scratch:
        made, code = Path(scratch, "made.o"), Path(scratch, "code")
        subprocess.run(["as", "--64", "-o", str(made), str(source)], check=True)
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", str(made), str(code)], check=True)
        return code.read_bytes().hex(sep="\n", bytes_per_sep=-LINE_BYTES) + "\n"


def main() -> int:
    """Write the file beside its source."""
    SOURCE.with_suffix(".hex").write_text(assemble(SOURCE))
    return 0


if __name__ == "__main__":
    sys.exit(main())
