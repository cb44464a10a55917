"""Where the daemon's log lines go: loguru, with the standard library's loggers routed into it."""

from __future__ import annotations

import logging
import sys

from loguru import logger

_FORMAT = "<dim>{time:HH:mm:ss.SSS}</dim> <level>{level: <7}</level> {message}<dim>{extra[context]}</dim>"
_PLAIN = "{time:YYYY-MM-DDTHH:mm:ss.SSSZ} {level: <7} {message}{extra[context]}"


class _ToLoguru(logging.Handler):
    """Hands records of the standard library's loggers (pykka, asyncssh, uvicorn) to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(exception=record.exc_info, depth=6).log(
            record.levelname if record.levelname in logging.getLevelNamesMapping() else record.levelno,
            "{}: {}", record.name, record.getMessage(),
        )  # fmt: skip


def set_up(level: str, *, dev: bool) -> None:
    """Log to stderr: in colour and short for a person at a terminal, else one full line each."""
    logger.remove()
    logger.configure(patcher=_add_context)  # type: ignore[arg-type]  # loguru's Record is not importable
    colour = dev and sys.stderr.isatty()
    logger.add(
        sys.stderr, level=level, format=_FORMAT if dev else _PLAIN, colorize=colour, backtrace=False, diagnose=False
    )
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.INFO, force=True)
    for name, least in (("asyncssh", logging.WARNING), ("uvicorn", logging.WARNING), ("urllib3", logging.ERROR)):
        logging.getLogger(name).setLevel(least)


def _add_context(record: dict[str, dict[str, object]]) -> None:
    extra = record["extra"]
    extra["context"] = "".join(f"  {key}={extra[key]}" for key in ("op", "owner") if key in extra)
