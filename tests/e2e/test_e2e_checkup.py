"""`banger doctor --boot` for real: in a host of its own, with a world beyond it, a name server and a router."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import images
from tests.support.daemon import BangerHome, banger_home
from tests.support.images import TestImage
from tests.support.netlab import SERVER, WORLD, Lab, needs_taps

pytestmark = [pytest.mark.boot, pytest.mark.root, needs_taps]

_NO_SUCH_NAME = b"\x81\x83"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with ExitStack() as stack:
        lab = Lab(stack, tmp_path_factory.mktemp("lab"), bridge_netfilter=False)
        stack.enter_context(_NameServer(lab))
        lab.host.run("sysctl -qw net.ipv4.ping_group_range='0 2147483647'")
        yield lab


class _NameServer:
    """Knows no name, and says so, on the loopback interface of the lab's host."""

    def __init__(self, lab: Lab) -> None:
        self._socket = lab.host.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 53))
        self._socket.settimeout(None)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # it says "not connected", and wakes the thread all the same
            self._socket.shutdown(socket.SHUT_RD)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                question, address = self._socket.recvfrom(2000)
            except OSError:
                return
            if not question:
                return
            self._socket.sendto(question[:2] + _NO_SUCH_NAME + question[4:], address)


@pytest.fixture(scope="module")
def inside(
    session_root: Path, tmp_path_factory: pytest.TempPathFactory, lab: Lab, pushed: Callable[[TestImage], str]
) -> Iterator[BangerHome]:
    """An installation that lives in the lab's host; what it boots was pulled outside."""
    resolv_conf = tmp_path_factory.mktemp("etc") / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.1\n")
    with banger_home(session_root) as home:
        for name, image in (("busybox", images.busybox()), ("spiteful", images.spiteful())):
            home.run("image", "pull", pushed(image), "--name", name).ok()
        home.run("kernel", "pull", "debian-cloud").ok()
        home.run("daemon", "stop").ok()
        into = ("nsenter", f"--net=/proc/{lab.host.pid}/ns/net", "unshare", "--mount", "sh", "-c")
        bind = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        home.cli = replace(home.cli, prefix=(*into, bind, str(resolv_conf)))
        yield home


def _rows(report: dict[str, Any], network: str) -> dict[str, dict[str, Any]]:
    machine = next(one for one in report["machines"] if one["usable"] and one["network"] == network)
    return {row["check"]: row for row in machine["rows"]}


def test_host_on_which_all_works_passes_every_check_on_every_network(inside: BangerHome) -> None:
    checked = inside.run(
        "doctor", "--boot", "--json", "--image", "busybox", "--network", "user", "--network", "tap",
        "--reach", f"{SERVER}:80",
    )  # fmt: skip
    assert checked.code == 0, str(checked)
    report = checked.json()
    assert report["ok"] is True
    for network in ("user", "tap"):
        rows = _rows(report, network)
        assert list(rows) == ("boot kernel console root exec cp dns egress mtu reach clock shutdown".split())
        assert [row for row in rows.values() if row["verdict"] != "ok"] == []
        assert ".vm: " in rows["dns"]["detail"]
        assert f"{WORLD}, this host's router, answers" in rows["egress"]["detail"]
    assert ", to TCP too" in _rows(report, "tap")["egress"]["detail"]
    assert report["host"][0]["verdict"] in ("ok", "note")
    assert inside.json("vm", "list") == []
    assert inside.run("doctor", "--leaks").code == 0


def test_what_an_image_spoils_is_found_row_by_row_with_a_hint_that_fits(inside: BangerHome) -> None:
    checked = inside.run("doctor", "--boot", "--json", "--image", "spiteful", "--network", "slirp")
    assert checked.code == 7, str(checked)
    rows = _rows(json.loads(checked.output), "slirp")
    failed = {name: row for name, row in rows.items() if row["verdict"] == "failed"}
    assert set(failed) == {"root", "dns", "egress", "mtu", "clock"}, rows
    assert failed["root"]["cause"].endswith("Read-only file system")
    assert "--init none" in failed["root"]["hint"]
    assert "10.0.2.99 does not answer the guest, though 127.0.0.1 answers this host" in failed["dns"]["detail"]
    assert failed["egress"]["detail"] == "the guest has no default route"
    assert "behind" in failed["clock"]["detail"]
    assert rows["exec"]["verdict"] == rows["cp"]["verdict"] == "ok"
