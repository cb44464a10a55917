"""The HTTP surface on a real Unix socket, over real owners and fake adapters."""

from __future__ import annotations

import asyncio
import threading

from banger.actors.inventory import overview
from banger.actors.services import Vmms
from banger.api.app import make_app
from banger.api.context import ApiContext, ArtifactContext, SystemContext, VmContext
from banger.api.server import bind, make_server, wait_started
from banger.catalog import Catalog
from banger.client import Client
from banger.core import clock
from banger.core.drivers import Drivers
from banger.core.models import GuestAccess
from banger.resolver import StoreResolver
from banger.sessions.all import make_sessions
from banger.storage.home_disk import HomeDisk
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import WAIT_S, World


def _vmms() -> Vmms:
    fake = FakeVmm()
    return Vmms(Drivers("VMM driver", [fake], fake.name), fake, fake, fake.name)


class Served:
    """A world behind a socket; the loop runs in a thread of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stopped = threading.Event()
        catalog = Catalog.load(world.layout)
        self._context = ApiContext(
            layout=world.layout,
            config=world.services.config,
            store=world.store,
            supervisor=world.supervisor,
            artifacts=ArtifactContext(StoreResolver(world.store, catalog, world.services.config), catalog),
            vms=VmContext(
                sessions=make_sessions(
                    world.store,
                    world.guests,
                    world.supervisor.submit,
                    world.attendance,
                    world.evidence.all,
                    lambda vm: world.layout.suspended_dir(vm.id).exists(),
                ),
                access=lambda vm: GuestAccess(vm.id, "ssh-ed25519 AAAA", ""),
                evidence=world.evidence,
                ledger=world.ledger,
                homes=HomeDisk(world.layout, world.services.config),
                error_counters=lambda vm: world.vmm.counted,
            ),
            system=SystemContext(_vmms(), None, lambda: overview(world.services), clock.now(), self.stopped.set),
        )
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)))
        self._thread.start()
        assert ready.wait(WAIT_S)
        self.client = Client(world.layout.socket)

    async def _serve(self, ready: threading.Event) -> None:
        server = make_server(make_app(self._context))
        serving = asyncio.create_task(server.serve(sockets=[bind(self.world.layout.socket)]))
        await wait_started(server)
        self._loop, self._server = asyncio.get_running_loop(), server
        ready.set()
        await serving

    @property
    def connections(self) -> int:
        """How many callers are connected."""
        return len(self._server.server_state.connections)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
