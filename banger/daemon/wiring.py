"""Wiring: creates and connects all parts of a daemon. The only module that knows every adapter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from loguru import logger

from banger.actors.base import Fact, OwnerActor
from banger.actors.driver_actor import DriverActor
from banger.actors.host_actor import HostActor
from banger.actors.housekeeping import Housekeeper
from banger.actors.image_actor import ImageActor
from banger.actors.inventory import overview
from banger.actors.kernel_actor import KernelActor
from banger.actors.messages import OwnerKey, OwnerKind, ReconcileVm, WakeVm
from banger.actors.services import ArtifactServices, HostServices, Services, Vmms, VmServices
from banger.actors.snapshot_actor import SnapshotActor
from banger.actors.template_actor import TemplateActor
from banger.actors.template_keeper import TemplateKeeper
from banger.actors.vm_actor import VmActor
from banger.agent.endpoint import Endpoint
from banger.agent.guests import AgentGuests
from banger.api.context import ApiContext, ArtifactContext, SystemContext, VmContext
from banger.bundle.snapshot_archive import LocalSnapshotArchives
from banger.bundle.source import BundleImageSource
from banger.catalog import Catalog
from banger.config import Config
from banger.core import clock
from banger.core.attendance import Attendance
from banger.core.drivers import Drivers
from banger.core.errors import BangerError
from banger.core.models import ProcessIdentity, Vm
from banger.core.operation_table import OperationTable
from banger.core.ports import (
    AGENT_SOCKET,
    AGENT_VSOCK_PORT,
    PORTS_SOCKET,
    PORTS_VSOCK_PORT,
    AgentCarrier,
    VmmDriver,
)
from banger.core.uid_span import parse_span
from banger.core.waiter import Waiter
from banger.daemon.capabilities import make_capabilities
from banger.daemon.installation import installation_id
from banger.dns.service import DnsService
from banger.forwarding.doorbells import Doorbells
from banger.forwarding.endings import Endings
from banger.forwarding.forwarders import Forwarders, Reach
from banger.guest.access import guest_access
from banger.guest.boot import LinuxGuestBoot
from banger.guest.hostkey import HostKeyMaker
from banger.guest.sshkeys import ensure_key
from banger.host.evidence.store import EvidenceStore
from banger.host.ledger import Ledger
from banger.host.uids import VmmUids, all_held
from banger.image_tools import LocalImageTools
from banger.kernels import sources as kernel_sources
from banger.launch import Launching
from banger.layout import Layout
from banger.oci.blobs import BlobStore
from banger.oci.source import OciImageSource
from banger.releases import vmm_releases
from banger.resolver import StoreResolver
from banger.rootfs.bootstrap import BootstrapImageSource
from banger.sessions.all import make_sessions
from banger.storage.drivers import all_drivers, choose
from banger.storage.objects import StorageObjects
from banger.store import Store
from banger.supervisor import Supervisor
from banger.vmm.drivers import all_drivers as all_vmm_drivers
from banger.vmm.processes import LocalProcesses
from banger.vmm.watcher import ExitWatcher

if TYPE_CHECKING:
    import pykka

OWNERS: dict[OwnerKind, type[OwnerActor]] = {
    OwnerKind.IMAGE: ImageActor,
    OwnerKind.KERNEL: KernelActor,
    OwnerKind.VM: VmActor,
    OwnerKind.SNAPSHOT: SnapshotActor,
    OwnerKind.TEMPLATE: TemplateActor,
    OwnerKind.DRIVER: DriverActor,
    OwnerKind.HOST: HostActor,
}


@dataclass(frozen=True, slots=True)
class Daemon:
    """What the process holds while it serves."""

    context: ApiContext
    guests: AgentGuests
    watcher: ExitWatcher
    endings: Endings
    doorbells: Doorbells
    housekeeper: Housekeeper
    templates: TemplateKeeper
    dns: DnsService
    attendance: Attendance

    async def close(self) -> None:
        """Let go of everything but the VMs, which go on."""
        self.watcher.close()
        self.endings.close()
        self.doorbells.close()
        await asyncio.to_thread(self.dns.stop)
        await self.guests.close()
        self.context.store.close()


def wire(layout: Layout, config: Config, loop: asyncio.AbstractEventLoop, stop: Callable[[], object]) -> Daemon:
    """Make every part. ``stop`` begins an orderly shutdown, from any thread."""
    store = Store(layout.database)
    catalog = Catalog.load(layout)
    resolver = StoreResolver(store, catalog, config)
    access = partial(guest_access, layout)
    ledger = Ledger(store.handles, layout)
    evidence = EvidenceStore(layout)
    attendance = Attendance()
    mark = installation_id(layout)
    launching = Launching(config, mark)
    users = parse_span(config.text("vmm.jail_uids"))
    drivers = all_vmm_drivers(config, layout, launching)
    vmms = Vmms(drivers, LocalProcesses(launching.outcome, users), launching, config.text("vmm.driver"))
    guests = AgentGuests(loop, partial(agent_endpoint, layout, drivers), partial(hears_agent, layout, drivers))

    def on_forwarder_exit(vm_id: str) -> None:
        if (vm := store.vms.get(vm_id)) is not None:
            supervisor.submit(ReconcileVm(vm_id, vm.name))

    endings = Endings(on_forwarder_exit)
    forwarders = Forwarders(mark, partial(ports_reach, layout, drivers), endings)

    def on_ring(vm_id: str) -> None:
        """Somebody waits at a published port of a suspended VM, and is refused if that cannot be woken."""
        if (vm := store.vms.get(vm_id)) is not None:
            waiter = supervisor.submit(WakeVm(vm_id, vm.name))
            waiter.when_answered(lambda: refuse_if_failed(waiter, vm, doorbells))

    doorbells = Doorbells(on_ring)
    capabilities = make_capabilities(layout, config, store, ledger, mark, forwarders, doorbells)
    storages = all_drivers(config, mark)
    parts: list[Services] = []
    housekeepers: list[Housekeeper] = []

    def spawn(key: OwnerKey, generation: int, report: Callable[[Fact], None]) -> pykka.ActorRef[OwnerActor]:
        return OWNERS[key.kind].start(key, generation, report, parts[0])

    supervisor = Supervisor(spawn, OperationTable())

    def on_exit(vm_id: str, identity: ProcessIdentity, _status: int | None) -> None:
        vm = store.vms.get(vm_id)
        reconciled = supervisor.submit(ReconcileVm(vm_id, vm.name if vm else vm_id, exited=identity))
        reconciled.when_answered(housekeepers[0].start_again)  # a reboot need not wait for the next look

    watcher = ExitWatcher(on_exit)
    parts.append(
        Services(
            layout=layout,
            config=config,
            store=store,
            submit=supervisor.submit,
            artifacts=_artifact_services(layout, config, store),
            vms=VmServices(
                resolver=resolver,
                vmms=vmms,
                watcher=watcher,
                boot=LinuxGuestBoot(layout),
                guests=guests,
                authorized_key=ensure_key(layout.ssh_key),
                attendance=attendance,
                host_keys=HostKeyMaker(),
                doors=capabilities.publisher,
            ),
            host=HostServices(
                ledger=ledger,
                evidence=evidence,
                storages=Drivers("storage driver", storages.values(), choose(storages, layout, config).name),
                capabilities=capabilities.all,
                host_objects=[
                    launching.host_objects,
                    *(one.host_objects for one in capabilities.all),
                    StorageObjects(layout, mark),
                ],
                uids=VmmUids(users if launching.jails else range(0), mark, lambda: all_held(ledger.all())),
            ),
        )
    )
    housekeepers.append(Housekeeper(parts[0]))
    sessions = make_sessions(
        store,
        guests,
        supervisor.submit,
        attendance,
        evidence.all,
        lambda vm: layout.suspended_dir(vm.id).exists(),
    )
    context = ApiContext(
        layout=layout,
        config=config,
        store=store,
        supervisor=supervisor,
        artifacts=ArtifactContext(resolver, catalog),
        vms=VmContext(sessions, access, evidence, ledger, capabilities.homes, partial(error_counters, layout, drivers)),
        system=SystemContext(vmms, capabilities.dns, lambda: overview(parts[0]), clock.now(), stop),
    )
    templates = TemplateKeeper(parts[0], lambda: bool(supervisor.operations.active()))
    housekeeper = housekeepers[0]
    return Daemon(context, guests, watcher, endings, doorbells, housekeeper, templates, capabilities.dns, attendance)


def refuse_if_failed(wake: Waiter, vm: Vm, doorbells: Doorbells) -> None:
    """What waits at the ports of a VM that was not woken is let go; the housekeeper has them held again."""
    try:
        wake.outcome()
    except BangerError as error:
        logger.warning("{}: not woken for its published ports: {}", vm.name, error)
        doorbells.let_go(vm.id)


def agent_endpoint(layout: Layout, drivers: Drivers[VmmDriver], vm: Vm) -> Endpoint:
    """Where the stream to the agent of a running VM begins. Raises ``usage`` for a driver that there is not."""
    by_vsock = drivers.chosen(vm.vmm).agent_carrier is AgentCarrier.VSOCK
    return Endpoint(layout.vm_run_dir(vm.id) / AGENT_SOCKET, AGENT_VSOCK_PORT if by_vsock else 0)


def hears_agent(layout: Layout, drivers: Drivers[VmmDriver], vm: Vm) -> bool:
    """Whether somebody in a VM's guest has the agent's stream open. Raises ``usage`` for a driver that there is not."""
    return drivers.chosen(vm.vmm).hears_agent(layout.vm_run_dir(vm.id))


def error_counters(layout: Layout, drivers: Drivers[VmmDriver], vm: Vm) -> Mapping[str, int]:
    """What went wrong in a VM's machine, as its VMM has counted it. Raises ``usage`` for a driver that there is not."""
    return drivers.chosen(vm.vmm).error_counters(layout.vm_dir(vm.id) / "vmm.log")


def ports_reach(layout: Layout, drivers: Drivers[VmmDriver], vm: Vm) -> Reach:
    """What the forwarder of a VM's published ports has to do with. Raises ``usage`` for a driver that there is not."""
    by_vsock = drivers.chosen(vm.vmm).agent_carrier is AgentCarrier.VSOCK
    socket, port = (AGENT_SOCKET, PORTS_VSOCK_PORT) if by_vsock else (PORTS_SOCKET, 0)
    return Reach(layout.vm_run_dir(vm.id) / socket, port, layout.vm_dir(vm.id) / "vmm.log")


def _artifact_services(layout: Layout, config: Config, store: Store) -> ArtifactServices:
    blobs = BlobStore(layout.blobs, leases=store.leases)
    bundles = BundleImageSource(layout, config, blobs=blobs)
    return ArtifactServices(
        image_sources=(
            BootstrapImageSource(layout, config),
            bundles,
            OciImageSource(layout, config, bundles=bundles, blobs=blobs),
        ),
        kernel_sources=kernel_sources(layout, config, blobs),
        image_tools=LocalImageTools(layout, config),
        snapshot_archives=LocalSnapshotArchives(),
        vmm_releases=vmm_releases(layout, config, blobs),
    )
