"""The network lab of the tests of the tap network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.netlab import Lab


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The parameter: whether iptables see what passes the bridge, as Docker and Kubernetes like it."""
    with ExitStack() as stack:
        yield Lab(stack, tmp_path, bridge_netfilter=getattr(request, "param", False))
