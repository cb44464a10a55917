"""Tables, progress and errors look right on a terminal, and are plain everywhere else."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core.errors import BangerError, ErrorKind
from banger.core.plain_text import printable
from banger.render.errors import error_text
from banger.render.progress import Progress
from banger.render.table import Column, render_table
from banger.render.terminal import Terminal, shorten
from banger.render.waterfall import render_waterfall
from tests.support.fake_api import event


class Screen(io.StringIO):
    """A terminal that remembers what was written, and can tell what would be seen."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    @property
    def visible(self) -> list[str]:
        """The lines on the screen after all that was written (cursor up, erase below, newline)."""
        lines, row = [""], 0
        for part in re.split(r"(\x1b\[\d*[AJ]|\n|\r)", self.getvalue()):
            if part == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif part.endswith("A") and part.startswith("\x1b"):
                row -= int(part[2:-1])
            elif part == "\x1b[J":
                lines[row:] = [""]
            elif part != "\r":
                lines[row] += part
        return [line for line in lines if line]


class Pipe(Screen):
    def isatty(self) -> bool:
        return False


TTY = {"TERM": "xterm", "NO_COLOR": "1"}
TEXT = st.binary(max_size=60).map(lambda data: data.decode("latin-1"))
COLUMNS = (Column("NAME", lambda row: row["name"], shrinks=True), Column("N", lambda row: row["n"]))


def on_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> Terminal:
    monkeypatch.setenv("COLUMNS", str(width))
    return Terminal(Screen(), TTY)


def test_table_is_cut_to_the_terminal_where_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"name": "a-very-long-name-indeed", "n": "12345"}]
    table = render_table(COLUMNS, rows, on_terminal(monkeypatch, 20))
    assert table.splitlines() == ["NAME           N", "a-very-long-…  12345"]


def test_table_in_a_pipe_is_never_cut() -> None:
    rows = [{"name": "x" * 500, "n": "1"}]
    assert "x" * 500 in render_table(COLUMNS, rows, Terminal(Pipe(), TTY))


def test_table_without_rows_is_its_header() -> None:
    assert render_table(COLUMNS, [], Terminal(Pipe(), TTY)) == "NAME  N\n"


@given(st.lists(st.tuples(TEXT, TEXT), max_size=5), st.integers(1, 90))
def test_table_has_one_line_per_row_whatever_it_holds(cells: list[tuple[str, str]], width: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        rows = [{"name": name, "n": n} for name, n in cells]
        assert len(render_table(COLUMNS, rows, on_terminal(monkeypatch, width)).split("\n")) == len(rows) + 2


@pytest.mark.parametrize(
    ("env", "stream", "colour", "moves"),
    [
        ({"TERM": "xterm"}, Screen(), True, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, Screen(), False, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, Screen(), True, True),
        ({"TERM": "dumb"}, Screen(), False, False),
        ({}, Screen(), False, False),
        ({"TERM": "xterm"}, Pipe(), False, False),
    ],
)
def test_colour_and_movement_need_a_terminal(env: dict[str, str], stream: Screen, colour: bool, moves: bool) -> None:
    terminal = Terminal(stream, env)
    assert (terminal.colour, terminal.can_move) == (colour, moves)
    assert ("\x1b" in terminal.paint("x", "red")) is colour


@given(st.binary().map(lambda data: data.decode("latin-1")))
def test_printable_text_holds_no_control_character(text: str) -> None:
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in printable(text))


def test_shorten_keeps_what_fits() -> None:
    assert (shorten("abc", 3), shorten("abcd", 3), shorten("abcd", 0)) == ("abc", "ab…", "…")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def feed(progress: Progress, *events: dict[str, object]) -> None:
    for item in events:
        progress(item)


def test_progress_in_a_pipe_is_a_line_per_finished_step() -> None:
    pipe = Pipe()
    progress = Progress(Terminal(pipe, TTY))
    feed(
        progress,
        event("started"),
        event("step_started", "fetch"),
        event("progress", "fetch", done=5, total=10, unit="bytes"),
        event("step_finished", "fetch", done=10, unit="bytes", elapsed_s=1.234),
        event("note", message="cached"),
        event("step_finished", "boot", elapsed_s=61.0, message="failed"),
    )
    progress(None)
    progress.close()
    assert pipe.getvalue() == "  fetch  10 B  1.23 s\n  cached\n  boot  failed  1m 01s\n"


def test_progress_on_a_terminal_is_redrawn_in_place() -> None:
    screen, clock = Screen(), Clock()
    progress = Progress(Terminal(screen, TTY), clock=clock)
    feed(progress, event("step_started", "pull"), event("step_started", "fetch"))
    clock.now += 1
    feed(progress, event("progress", "fetch", done=1 << 20, total=4 << 20, unit="bytes"))
    clock.now += 2
    feed(progress, event("progress", "fetch", done=3 << 20, total=4 << 20, unit="bytes"))
    assert screen.visible == [
        "  … pull  3.0 s",
        "  … fetch  ███████████████░░░░░  3.0 MiB / 4.0 MiB  1.0 MiB/s  3.0 s",
    ]
    feed(progress, event("step_finished", "fetch", done=4 << 20, unit="bytes", elapsed_s=3.5))
    assert screen.visible == ["  ✓ fetch  4.0 MiB  3.50 s", "  … pull  3.0 s"]
    feed(progress, event("note", message="almost"), event("step_finished", "pull", elapsed_s=4.0, message="failed"))
    progress.close()
    assert screen.visible == ["  ✓ fetch  4.0 MiB  3.50 s", "  ✗ pull  failed  4.00 s"]


def test_note_of_a_running_step_stands_beside_it() -> None:
    screen = Screen()
    progress = Progress(Terminal(screen, TTY), clock=Clock())
    feed(progress, event("note", message="before"), event("step_started", "a"), event("note", message="unpacking"))
    assert screen.visible == ["  before", "  … a  0.0 s  unpacking"]


def test_transient_progress_leaves_no_trace_on_a_terminal() -> None:
    screen = Screen()
    progress = Progress(Terminal(screen, TTY), transient=True, clock=Clock())
    feed(progress, event("step_started", "boot"))
    assert screen.visible == ["  … boot  0.0 s"]
    feed(progress, event("step_finished", "boot", elapsed_s=1.0), event("step_started", "connect"))
    progress.close()
    progress.close()
    assert screen.visible == []


def test_quiet_progress_writes_nothing() -> None:
    screen = Screen()
    progress = Progress(Terminal(screen, TTY), quiet=True)
    feed(
        progress,
        event("step_started", "boot"),
        event("step_finished", "boot", elapsed_s=1.0),
        event("note", message="x"),
    )
    progress.close()
    assert screen.getvalue() == ""


def test_long_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    screen = Screen()
    progress = Progress(Terminal(screen, TTY), clock=Clock())
    feed(progress, event("step_started", "x" * 100))
    assert [len(line) for line in screen.visible] == [29]


def test_error_on_a_terminal_is_coloured_but_says_the_same() -> None:
    error = BangerError(ErrorKind.NOT_FOUND, 'image "x" not found', cause="a\n\nb", hint="banger image pull x")
    plain = error_text(error, Terminal(Pipe(), TTY))
    coloured = error_text(error, Terminal(Screen(), {"TERM": "xterm"}))
    assert plain == 'error: image "x" not found\n  cause: a\n         b\n  hint: banger image pull x\n'
    assert "\x1b[1;31merror:\x1b[0m" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


def test_waterfall_shows_even_the_shortest_step() -> None:
    timings = [
        {"name": "long", "started_s": 0.001, "duration_s": 9.0},
        {"name": "first", "started_s": 0.0, "duration_s": 0.001},
        {"name": "never ended", "started_s": 9.0, "duration_s": None},
    ]
    lines = render_waterfall(timings, Terminal(Pipe(), TTY)).splitlines()
    assert [line.split("  ")[1].strip() for line in lines] == ["first", "long", "never ended"]
    assert all("█" in line for line in lines)
    assert lines[2].endswith("unfinished")


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)), max_size=8))
def test_waterfall_bars_have_one_width(steps: list[tuple[float, float]]) -> None:
    timings = [{"name": "s", "started_s": start, "duration_s": duration} for start, duration in steps]
    bars = [line.split("  ")[2] for line in render_waterfall(timings, Terminal(Pipe(), TTY)).splitlines()]
    assert all(re.fullmatch(r"·*█+·*", bar) and len(bar) == 32 for bar in bars)
