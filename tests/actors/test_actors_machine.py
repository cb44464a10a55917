"""A random life of the owners against a model: what is in the store and on the disk is always what it should be."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from banger.actors.messages import (
    CommitVm,
    CreateVm,
    DeleteImage,
    DeleteKernel,
    DeleteVm,
    PromoteImage,
    Prune,
    PullImage,
    PullKernel,
    ReconcileHost,
    RegisterImage,
    TagImage,
)
from banger.core.backoff import Backoff
from banger.core.crashpoints import EXIT_CODE, all_points
from banger.core.errors import BangerError, ErrorKind
from banger.core.names import new_id
from banger.core.ports import ImageRequest, KernelRequest
from banger.core.wire.vm_spec import VmSpec
from banger.store import Store
from tests.support import in_memory
from tests.support.crash_zygote import Zygote
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

NAMES = st.sampled_from(["alpine", "debian", "fedora"])
VERSIONS = st.sampled_from(["1", "2"])
VM_NAMES = st.sampled_from(["one", "two", "three"])
KERNELS = st.sampled_from(["default", "edge"])


#: Where a process may die that makes something, or takes something away.
MAKING, TAKING = ("artifact.build:", "artifact.publish:", "publish:"), ("artifact.remove:", "discard:")
OWN_POINTS = {
    "pull": "image.pull:",
    "register": "image.register:",
    "promote": "image.promote:",
    "pull kernel": "kernel.pull:",
}


@cache
def points_of(verb: str) -> list[str]:
    """Where a command of this kind comes by."""
    prefixes = (*MAKING, OWN_POINTS[verb]) if verb in OWN_POINTS else TAKING
    return [point for point in all_points() if point.startswith(prefixes)]


@cache
def zygote() -> Zygote:
    """Started when the first crash is due; ended with the tests of this module."""
    return Zygote()


@pytest.fixture(scope="module", autouse=True)
def no_zygote_left():
    yield
    if zygote.cache_info().currsize:
        zygote().close()
        zygote.cache_clear()


class Sturdy(World):
    """Forgives any number of bugs."""

    backoff = Backoff(first_s=0.001, most_s=0.01, intensity=1_000_000)


class Owners(RuleBasedStateMachine):
    """Model: image name to digest, registered names, kernel names, VM name to the digest it was made from."""

    @initialize()
    def begin(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="machine-", dir=in_memory.place()))
        self.world = Sturdy(self.home, FakeVmm())
        self.images: dict[str, str] = {}
        self.kernels: set[str] = set()
        self.vms: dict[str, str] = {}
        self.registered: set[str] = set()
        self.own = self.home / "own.ext4"
        self.own.write_text("sha256:own")

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.stop()
            shutil.rmtree(self.home)

    def _digest(self, name: str) -> str:
        return self.world.images.digests.get(name, f"sha256:{name}")

    @rule(name=NAMES, version=VERSIONS)
    def move_tag(self, name, version):
        self.world.images.digests[name] = f"sha256:{name}-{version}"

    @rule(name=NAMES, refresh=st.booleans())
    def pull(self, name, refresh):
        before = self.world.store.images.by_name(name)
        if refresh and name in self.registered:
            assert self._refusal(PullImage(name, ImageRequest(name), refresh)) is ErrorKind.ALREADY_EXISTS
            return
        image = self.world.do(PullImage(name, ImageRequest(name), refresh))
        if before is not None and before.id != image.id:  # the old content stays for those who use it, and only then
            used = bool(self.world.store.vms.using_image(before.id))
            assert (self.world.store.images.get(before.id) is not None) == used
        if refresh or name not in self.images:
            self.images[name] = self._digest(name)
        assert image.digest == self.images[name]

    @rule(name=NAMES)
    def pull_that_fails(self, name):
        if name in self.registered:
            return
        self.world.images.failures.append(BangerError(ErrorKind.UNAVAILABLE, "registry down"))
        try:
            self.world.do(PullImage(name, ImageRequest(name), refresh=True))
        except BangerError as error:
            assert error.kind is ErrorKind.UNAVAILABLE
        else:
            self.images[name] = self._digest(name)  # known already, or linked: nothing had to be built
        self.world.images.failures.clear()

    @rule(name=NAMES)
    def pull_that_is_cancelled(self, name):
        if name in self.registered:
            return
        self.world.images.gate.close()
        waiter = self.world.supervisor.submit(PullImage(name, ImageRequest(name), refresh=True))
        eventually(lambda: self.world.images.gate.reached.is_set() or waiter.answered)
        done = waiter.answered
        waiter.leave()
        eventually(lambda: not self.world.operations.active(), what="the pull ends")
        self.world.images.gate.open()
        if done:
            self.images[name] = self._digest(name)

    @rule(name=NAMES)
    def delete_image(self, name):
        image = self.world.store.images.by_name(name)
        if image is None:
            return
        used = bool(self.world.store.vms.using_image(image.id))
        try:
            self.world.do(DeleteImage(name, image.id))
        except BangerError as error:
            assert error.kind is ErrorKind.CONFLICT
            assert used
        else:
            assert not used
            del self.images[name]
            self.registered.discard(name)

    @rule(name=NAMES)
    def register(self, name):
        command = RegisterImage(name, str(self.own))
        if name in self.images:
            assert self._refusal(command) is ErrorKind.ALREADY_EXISTS
        else:
            self.world.do(command)
            self.images[name] = "sha256:own"
            self.registered.add(name)

    @rule(name=NAMES)
    def promote(self, name):
        if name not in self.images:
            assert self._refusal(PromoteImage(name)) is ErrorKind.NOT_FOUND
            return
        assert self.world.do(PromoteImage(name)).managed
        self.registered.discard(name)

    @rule(name=NAMES, other=NAMES)
    def tag(self, name, other):
        image = self.world.store.images.by_name(name)
        if image is None:
            return
        if self.images.get(other, image.digest) != image.digest:
            assert self._refusal(TagImage(other, image.id)) is ErrorKind.ALREADY_EXISTS
        elif other not in self.images:
            self.world.do(TagImage(other, image.id))
            self.images[other] = image.digest
            if name in self.registered:
                self.registered.add(other)

    @rule(vm=VM_NAMES, name=NAMES)
    def commit(self, vm, name):
        row = self.world.store.vms.by_name(vm)
        if row is None:
            return
        if name in self.images:
            assert self._refusal(CommitVm(name, row.id)) is ErrorKind.ALREADY_EXISTS
        else:
            self.images[name] = self.world.do(CommitVm(name, row.id)).digest

    @rule(unused=st.booleans())
    def prune(self, unused):
        before = {image.name for image in self.world.store.images.all()}
        self.world.do(Prune(unused=unused))
        left = {image.name for image in self.world.store.images.all()}
        assert all(self.world.store.vms.using_image(image.id) for image in self.world.store.images.nameless())
        for name in before - left - {""}:
            assert unused
            assert name not in self.registered
            del self.images[name]
        self.kernels &= {kernel.name for kernel in self.world.store.kernels.all()}

    def _refusal(self, command) -> ErrorKind:
        with pytest.raises(BangerError) as caught:
            self.world.do(command)
        return caught.value.kind

    @rule(name=KERNELS)
    def pull_kernel(self, name):
        self.world.do(PullKernel(name, KernelRequest(source=name), refresh=True))
        self.kernels.add(name)

    @rule(name=KERNELS)
    def delete_kernel(self, name):
        kernel = self.world.store.kernels.by_name(name)
        if kernel is None:
            return
        used = bool(self.world.store.vms.using_kernel(kernel.id))
        try:
            self.world.do(DeleteKernel(name, kernel.id))
        except BangerError:
            assert used
        else:
            assert not used
            self.kernels.discard(name)

    @rule(vm=VM_NAMES, image=NAMES, kernel=KERNELS)
    def create(self, vm, image, kernel):
        try:
            self.world.do(CreateVm(new_id(), vm, VmSpec(image, kernel)))
        except BangerError as error:
            assert error.kind is ErrorKind.ALREADY_EXISTS
            assert vm in self.vms
            return
        assert vm not in self.vms
        self.images.setdefault(image, self._digest(image))
        self.kernels.add(kernel)
        self.vms[vm] = self.images[image]

    @rule(vm=VM_NAMES)
    def delete_vm(self, vm):
        row = self.world.store.vms.by_name(vm)
        assert (row is not None) == (vm in self.vms)
        if row is not None:
            self.world.do(DeleteVm(row.id, vm))
            del self.vms[vm]

    @rule(name=NAMES)
    def owner_crashes(self, name):
        """A bug: it is answered, and the name works on."""
        if name in self.registered:
            return
        self.world.images.failures.append(ZeroDivisionError("injected"))
        try:
            self.world.do(PullImage(name, ImageRequest(name), refresh=True))
        except BangerError as error:
            assert error.kind is ErrorKind.INTERNAL
        else:
            self.images[name] = self._digest(name)  # nothing had to be built
        self.world.images.failures.clear()

    @rule(
        name=NAMES,
        kernel=KERNELS,
        verb=st.sampled_from(
            ["pull", "pull", "delete image", "register", "promote", "pull kernel", "delete kernel", "prune"]
        ),
        chance=st.integers(0, 10**6),
    )
    def crash(self, name, kernel, verb, chance):
        """The process dies in the middle of a command, as by ``kill -9``: afterwards all of it was done, or nothing."""
        if verb == "pull" and name in self.registered:
            return
        self.world.stop()
        before = self._rows()
        subject = kernel if "kernel" in verb else name
        points = points_of(verb)
        point = points[chance % len(points)]
        status, _ = zygote().run(self.home, [f"{verb}={subject}"], point, digests=self.world.images.digests)
        self.world.start()
        self.world.do(ReconcileHost(at_start=True))
        assert status in (0, 1, EXIT_CODE)  # 1: refused, as it should be
        self._accept(verb, subject, before, done=status == 0)

    def _rows(self):
        store = Store(self.world.layout.database)
        try:
            images = {image.name: (image.digest, image.managed) for image in store.images.all() if image.name}
            return images, {kernel.name for kernel in store.kernels.all() if kernel.name}
        finally:
            store.close()

    def _accept(self, verb, subject, before, *, done):
        """Only what the command was about may have changed, and only to what it was to become."""
        store = self.world.store
        images = {image.name: (image.digest, image.managed) for image in store.images.all() if image.name}
        kernels = {kernel.name for kernel in store.kernels.all() if kernel.name}
        old_images, old_kernels = before
        if verb != "prune":
            assert {n: i for n, i in images.items() if n != subject} == {
                n: i for n, i in old_images.items() if n != subject
            }
        wanted = {
            "pull": (self._digest(subject), True),
            "register": old_images.get(subject) or ("sha256:own", False),
            "promote": (old_images[subject][0], True) if subject in old_images else None,
        }
        assert images.get(subject) in (old_images.get(subject), wanted.get(verb)) or "kernel" in verb
        assert set(images) <= {*old_images, subject}
        if done and verb == "pull":
            assert images[subject] == wanted["pull"]
        self.images = {name: digest for name, (digest, _) in images.items()}
        self.registered = {name for name, (_, managed) in images.items() if not managed}
        assert kernels <= {*old_kernels, subject}
        self.kernels = kernels

    @rule()
    def restart(self):
        self.world.restart()
        self.world.do(ReconcileHost(at_start=True))
        again = self.world.do(ReconcileHost())
        assert (again.stopped, again.removed, again.failed) == ([], [], [])

    @invariant()
    def store_and_disk_are_as_the_model_says(self):
        if not hasattr(self, "world"):
            return
        store, layout = self.world.store, self.world.layout
        assert {image.name: image.digest for image in store.images.all() if image.name} == self.images
        assert {kernel.name for kernel in store.kernels.all() if kernel.name} == self.kernels
        for vm in store.vms.all():
            image = store.images.get(vm.image_id)
            assert image is not None
            assert image.digest == self.vms[vm.name]
        for image in store.images.all():
            assert layout.image_rootfs(image).read_text() == image.digest
            assert not image.name or image.managed == (image.name not in self.registered)
        assert self.world.leftovers() == []


Owners.TestCase.settings = settings(
    max_examples=max(20, settings().max_examples // 3),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
test_owners_live_as_the_model_says = Owners.TestCase
