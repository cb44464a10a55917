"""Settings and paths as seen by this process; no daemon is needed."""

from __future__ import annotations

from typer import Context

from banger.commands.session import CliSession
from banger.config import Config, Setting, variable_of
from banger.render.table import Column, render_table

_COLUMNS = (
    Column("KEY", lambda row: row["key"]),
    Column("VALUE", lambda row: str(row["value"])),
    Column("ORIGIN", lambda row: row["origin"], shrinks=True),
    Column("MEANING", lambda row: row["help"], shrinks=True),
)


def show(ctx: Context) -> None:
    """Print every setting, its value and its origin."""
    session: CliSession = ctx.obj
    rows = [_row(setting) for setting in Config.load(session.layout.config_file)]
    session.show_document(rows, lambda terminal: render_table(_COLUMNS, rows, terminal))


def _row(setting: Setting) -> dict[str, object]:
    key = setting.key
    return {
        "key": key.name,
        "value": setting.value,
        "origin": setting.origin,
        "default": key.default,
        "variable": variable_of(key.name),
        "choices": list(key.choices),
        "help": key.help,
    }


def path(ctx: Context) -> None:
    """Print the paths of this installation."""
    session: CliSession = ctx.obj
    layout = session.layout
    paths = {
        "config_file": layout.config_file,
        "catalog_dir": layout.catalog_dir,
        "data_dir": layout.data,
        "run_dir": layout.run,
        "cache_dir": layout.cache,
        "socket": layout.socket,
        "daemon_log": layout.daemon_log,
    }
    width = max(map(len, paths))
    text = "".join(f"{name.ljust(width)}  {value}\n" for name, value in paths.items())
    session.show_document({name: str(value) for name, value in paths.items()}, text)
