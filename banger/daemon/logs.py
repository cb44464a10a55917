"""The daemon's logging: loguru, with the standard library's loggers routed into it."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from typing import Any

from loguru import logger

from banger.core.plain_text import printable, printable_lines

_FORMAT = "<dim>{time:HH:mm:ss.SSS}</dim> <level>{level: <7}</level> {message}<dim>{extra[context]}</dim>"
#: Longer messages are cut: what a guest or a registry says gets into some of them.
_LONGEST_MESSAGE = 16 << 10
#: Where lines of a log begin with their time, none that somebody else has written does.
_CONTINUED = "\n    | "
_PLAIN = "{time:YYYY-MM-DDTHH:mm:ss.SSSZ} {level: <7} {message}{extra[context]}"


class _ToLoguru(logging.Handler):
    """Hands records of the standard library's loggers (pykka, uvicorn) to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(exception=record.exc_info, depth=6).log(
            record.levelname if record.levelname in logging.getLevelNamesMapping() else record.levelno,
            "{}: {}", record.name, record.getMessage(),
        )  # fmt: skip


def set_up(level: str, *, dev: bool) -> None:
    """Log to stderr: in colour and short for a person at a terminal, else one full line each."""
    logger.remove()
    logger.configure(patcher=_make_harmless)  # type: ignore[arg-type]  # loguru's Record is not importable
    form = f"{_FORMAT if dev else _PLAIN}{{extra[trace]}}\n"
    colour = dev and sys.stderr.isatty()
    logger.add(sys.stderr, level=level, format=lambda _record: form, colorize=colour, backtrace=False, diagnose=False)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.INFO, force=True)
    for name, least in (("uvicorn", logging.WARNING), ("urllib3", logging.ERROR)):
        logging.getLogger(name).setLevel(least)
    logging.captureWarnings(capture=True)
    threading.excepthook = lambda failed: _log_failure(failed.exc_value, f"a thread ended: {failed.thread}")
    sys.unraisablehook = lambda failed: _log_failure(failed.exc_value, f"nobody could be told: {failed.object!r}")


def _log_failure(error: BaseException | None, message: str) -> None:
    """What Python would print on standard error as it is."""
    if not isinstance(error, SystemExit):
        logger.opt(exception=error).error("{}", message)


def _make_harmless(record: dict[str, Any]) -> None:
    """Let a record be one line, and its further lines unlike those of another, whoever made its words."""
    extra, failure = record["extra"], record["exception"]
    record["message"] = _continued(record["message"])
    extra["context"] = "".join(f"  {key}={printable(extra[key])}" for key in ("op", "owner") if key in extra)
    trace = "".join(traceback.format_exception(failure.type, failure.value, failure.traceback)) if failure else ""
    extra["trace"] = _continued(f"\n{trace.rstrip()[-_LONGEST_MESSAGE:]}") if trace else ""


def _continued(text: str) -> str:
    cut = text if len(text) <= _LONGEST_MESSAGE + 1 else f"{text[:_LONGEST_MESSAGE]}…"
    return printable_lines(cut).replace("\n", _CONTINUED)
