"""Hold the size of every source file: one that needs more lines than this does more than one job."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 450
TREES = ("banger", "bench", "scripts", "tests")


def too_long(root: Path) -> list[str]:
    """One line per Python file above the limit."""
    sizes = (
        (path, len(path.read_text().splitlines())) for tree in TREES for path in sorted((root / tree).rglob("*.py"))
    )
    return [f"{path.relative_to(root)}: {lines} lines, {LIMIT} are allowed" for path, lines in sizes if lines > LIMIT]


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    problems = too_long(ROOT)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
