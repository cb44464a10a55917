from __future__ import annotations

import asyncio
import errno
import resource
import subprocess
import sys

from loguru import logger

from banger.daemon import descriptors


def test_daemon_that_can_accept_nobody_says_so_once_a_minute_and_other_errors_always() -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), format="{message}")
    loop, clock = asyncio.new_event_loop(), [0.0]
    others: list[object] = []
    loop.default_exception_handler = others.append  # type: ignore[method-assign]
    descriptors.quieten(loop, lambda: clock[0])
    try:
        for second in range(61):
            clock[0] = float(second)
            for _ in range(128):
                exception = OSError(errno.EMFILE, "Too many open files")
                loop.call_exception_handler(
                    {"message": "socket.accept() out of system resource", "exception": exception}
                )
        loop.call_exception_handler({"message": "something else"})
    finally:
        logger.remove(sink)
        loop.close()
    assert len(lines) == 2
    assert "Too many open files" in lines[0]
    assert len(others) == 1


def test_limit_is_raised_to_what_the_host_grants_and_no_further() -> None:
    script = (
        "import resource; from banger.daemon import descriptors;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512)); descriptors.raise_limit();"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 512:
        return
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["512", "512"]
