"""What holds the network ``user`` is taken down as far as it can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity
from banger.network.namespace import place as namespaces


def test_uplink_that_may_not_be_ended_is_told_and_keeps_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """podman#27372: a profile of AppArmor's keeps signals from ``pasta``."""
    uplink, holder = ProcessIdentity(71, 1, "boot", "banger-pasta-x"), ProcessIdentity(72, 1, "boot", "banger-net-x")
    ended: list[int] = []

    def kill(identity: ProcessIdentity) -> bool:
        if identity is uplink:
            raise PermissionError(1, "Operation not permitted")
        ended.append(identity.pid)
        return True

    monkeypatch.setattr(namespaces, "find_uplink", lambda _: uplink)
    monkeypatch.setattr(namespaces, "find_holder", lambda _: holder)
    monkeypatch.setattr(namespaces.processes, "kill", kill)
    monkeypatch.setattr(namespaces.processes, "wait_gone", lambda *_: True)
    renewed: list[bool] = []
    place = namespaces.NamespacePlace("x", tmp_path, lambda: renewed.append(True))
    with pytest.raises(BangerError, match="the process 71 of the network of VMs cannot be ended") as refused:
        place.close()
    assert (refused.value.kind, ended, renewed) == (ErrorKind.DENIED, [72], [True])
    assert "AppArmor" in refused.value.hint
