"""Errors: what is told of a failure that nobody foresaw."""

from __future__ import annotations

import errno
import os

import pytest

from banger.core.errors import ErrorKind, internal_error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE])
def test_lack_of_something_is_no_bug_wherever_it_comes_up(number: int) -> None:
    told = internal_error(OSError(number, os.strerror(number), "/x"), "doing it")
    assert told.kind is ErrorKind.EXHAUSTED
    assert "/x" in told.cause
    assert told.hint
    assert internal_error(OSError(errno.EIO, "broken"), "doing it").kind is ErrorKind.INTERNAL
