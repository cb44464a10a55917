"""Marks for what not every host gives its processes."""

from __future__ import annotations

import resource
import socket

import pytest


def needs_descriptors(count: int) -> pytest.MarkDecorator:
    """For tests of many connections; the limit is raised as far as it goes (``tests/support/surroundings.py``)."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return pytest.mark.skipif(0 <= hard < count, reason=f"at most {hard} open files are allowed, {count} are needed")


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this host has IPv6 switched off")
