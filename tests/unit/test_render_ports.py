"""How published ports and restarts read in a list."""

from __future__ import annotations

from banger.core.codec import to_plain
from banger.core.publishing import parse_publish
from banger.render.views import ports, vm_state


def shown(*texts: str) -> str:
    return ports({"spec": {"ports": to_plain(parse_publish(texts))}})


def test_neighbours_are_one_range_and_strangers_are_not() -> None:
    assert shown("8000-8002:8000-8002", "8003:90") == "127.0.0.1:8000-8002->8000-8002/tcp, 127.0.0.1:8003->90/tcp"
    assert shown("53:53/udp", "54:54/tcp") == "127.0.0.1:53->53/udp, 127.0.0.1:54->54/tcp"


def test_wishes_that_are_not_chosen_yet_read_as_they_were_typed() -> None:
    assert shown("80", "8000-8010:80", "[::1]::53/udp") == (
        "127.0.0.1:?->80/tcp, 127.0.0.1:8000-8010->80/tcp, [::1]:?->53/udp"
    )


def test_port_of_a_vm_of_an_older_daemon_is_a_tcp_port() -> None:
    row = {"ports": [{"guest_port": 80, "host_port": 8080, "host_address": "127.0.0.1"}]}
    assert ports(row) == "127.0.0.1:8080->80/tcp"


def test_vm_that_is_about_to_come_back_is_restarting() -> None:
    row = {"state": "stopped", "exit_reason": "guest_reboot", "restarts": {"due_at": "2026-05-01T10:00:00Z"}}
    assert vm_state(row) == "restarting (guest_reboot)"
    assert vm_state({**row, "restarts": {"due_at": None}}) == "stopped (guest_reboot)"


def test_suspended_vm_shows_the_ports_that_wake_it() -> None:
    wished = {"guest_port": 80, "host_port": 0, "host_address": "127.0.0.1", "protocol": "tcp"}
    chosen = {**wished, "host_port": 8080}
    row = {"spec": {"ports": [wished]}, "last_ports": [chosen], "ports": []}
    assert ports({**row, "state": "suspended"}) == "127.0.0.1:8080->80/tcp"
    assert "8080" not in ports({**row, "state": "stopped"})
