"""Hold the arrows between banger's parts: the table under "The map" in ARCHITECTURE.md is the rule.

Every module of the package belongs to exactly one row of that table, and may import modules of its own row and of the
rows that its third column names. Besides, what `banger` imports at start-up must stay light: nothing that the command's
side reaches at module level may lead into the daemon's world or to a library that is slow to import.

Exit status 1, with one line per broken rule, if anything is wrong.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "banger"
#: The row whose modules `banger` loads at start-up, and what that row is called in "everything but `cli`".
COMMAND_SIDE = "cli"
#: Libraries that cost more than the whole start-up budget of a command.
HEAVY = frozenset(
    "asyncio dns isal jsonschema loguru oras pydantic pykka pyroute2 requests rich starlette "
    "sqlite3 pysqlite3 uvicorn zstandard".split()
)
#: Arrows that the table forbids, allowed inside functions only, each with its reason.
LAZY_EXCEPTIONS = {
    ("banger.commands.daemon", "banger.daemon.main"): "`banger daemon` is the daemon: it becomes that process",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the map: its first place names it."""

    places: tuple[str, ...]
    may_import: frozenset[str]


@dataclass(frozen=True, slots=True)
class Import:
    """One import of one of ours or of a third party's module.

    Attributes:
        eager: it runs when the importing module is imported (neither in a function nor for type checkers only).
    """

    importer: str
    target: str
    line: int
    eager: bool


def read_map(text: str) -> list[Row]:
    """Parse the table. Places and permissions are the backquoted words, ``core/`` and ``cli.py`` without their ends.

    Raises:
        ValueError: the table is not there or does not read as expected.
    """
    section = re.search(r"^## The map$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    lines = section[1].splitlines() if section else []
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines if line.startswith("| `")]
    rows = [line for line in cells if len(line) == 3]
    if not rows:
        raise ValueError('no table of places under "The map"')
    places = [tuple(_names(row[0])) for row in rows]
    known = {place for row in places for place in row}
    return [Row(own, _permissions(row[2], known, places)) for own, row in zip(places, rows, strict=True)]


def _names(cell: str) -> list[str]:
    return [word.removesuffix(".py").rstrip("/") for word in re.findall(r"`([^`]+)`", cell)]


def _permissions(cell: str, known: set[str], rows: list[tuple[str, ...]]) -> frozenset[str]:
    named = _names(cell)
    if unknown := [name for name in named if name not in known]:
        raise ValueError(f'the map allows imports of {", ".join(unknown)}, which is no place on it ("{cell}")')
    if cell.startswith("everything but"):
        refused = {place for row in rows if row[0] in named for place in row}
        return frozenset(known - refused)
    if cell != "nothing" and not named:
        raise ValueError(f'the map\'s "{cell}" names no place')
    return frozenset(named)


def modules_of(package: Path) -> dict[str, Path]:
    """Dotted name -> file, for every module of the package; a package is its ``__init__.py``."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(module: str, path: Path, modules: Iterable[str]) -> Iterator[Import]:
    """Every import statement of a file, with the module it really loads (``from a import b`` may load ``a.b``)."""
    known = set(modules)
    for node, eager in _import_nodes(ast.parse(path.read_text(encoding="utf-8"), str(path)), eager=True):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, eager)
            continue
        base = _absolute(module, path, node)
        for alias in node.names:
            full = f"{base}.{alias.name}"
            yield Import(module, full if full in known else base, node.lineno, eager)


def _import_nodes(node: ast.AST, *, eager: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, eager
            continue
        lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        lazy = lazy or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test))
        yield from _import_nodes(child, eager=eager and not lazy)


def _absolute(module: str, path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    keep = len(parts) - node.level + (path.name == "__init__.py")
    return ".".join([*parts[:keep], *([node.module] if node.module else [])])


def place_of(module: str) -> str:
    """``banger.core.models`` stands at ``core``. The package itself and ``__main__`` go with the command."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__main__" else COMMAND_SIDE


def broken_arrows(imports: list[Import], rows: list[Row]) -> Iterator[str]:
    """One line per import that the table does not allow, and per module that stands on no row."""
    row_of = {place: row for row in rows for place in row.places}
    for module in sorted({found.importer for found in imports}):
        if place_of(module) not in row_of:
            yield f'{module}: "{place_of(module)}" is not on the map in ARCHITECTURE.md'
    for found in imports:
        if not _is_ours(found.target) or found.target == PACKAGE:
            continue
        source, target = place_of(found.importer), place_of(found.target)
        row = row_of.get(source)
        if row is None or target in row.places or target in row.may_import:
            continue
        if not found.eager and (found.importer, found.target) in LAZY_EXCEPTIONS:
            continue
        yield f"{found.importer}:{found.line}: {source} may not import {found.target}"


def heavy_start(imports: list[Import], rows: list[Row]) -> Iterator[str]:
    """One line per way from the command's side, by imports that run at start-up, to something slow to load."""
    command_row = next(row for row in rows if COMMAND_SIDE in row.places)
    light = set(command_row.places) | command_row.may_import
    eager: dict[str, list[str]] = {}
    for found in imports:
        if found.eager:
            eager.setdefault(found.importer, []).append(found.target)
    starts = [module for module in eager if place_of(module) in command_row.places]
    seen: dict[str, tuple[str, ...]] = {}
    queue: list[tuple[str, tuple[str, ...]]] = [(module, (module,)) for module in sorted(starts)]
    while queue:
        module, way = queue.pop(0)
        if module in seen:
            continue
        seen[module] = way
        if (_is_ours(module) and place_of(module) not in light) or module.split(".", maxsplit=1)[0] in HEAVY:
            yield f"start-up loads {module}: {' -> '.join(way)}"
            continue
        queue += [(target, (*way, target)) for target in eager.get(module, [])]


def _is_ours(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] == PACKAGE


def check(root: Path) -> list[str]:
    """All broken rules of the tree at ``root``."""
    try:
        rows = read_map((root / "ARCHITECTURE.md").read_text())
    except ValueError as error:
        return [f"ARCHITECTURE.md: {error}"]
    modules = modules_of(root / PACKAGE)
    imports = [found for module, path in modules.items() for found in imports_of(module, path, modules)]
    return list(dict.fromkeys([*broken_arrows(imports, rows), *heavy_start(imports, rows)]))


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    problems = check(ROOT)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
