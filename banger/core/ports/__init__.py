"""The interfaces of the outside world as the owners need them. Adapters implement these; nothing inherits them."""

from banger.core.ports.contribution import Contribution, joined
from banger.core.ports.engines import Engine, EngineError, Engines
from banger.core.ports.evidence import EvidenceKeeper
from banger.core.ports.guest import SSH_PORT, GuestBoot, GuestConfig, GuestNetwork, Guests, Mount
from banger.core.ports.host import Capability, Fill, Handle, HostObject, Storage, VmLedger
from banger.core.ports.image_tools import ImageTools, PushRequest, RootfsFacts
from banger.core.ports.images import BuiltImage, ImageRequest, ImageSource, KernelReference, Leases, ResolvedImage
from banger.core.ports.kernels import BuiltKernel, KernelRequest, KernelSource
from banger.core.ports.machine import (
    AGENT_PORT,
    AGENT_SOCKET,
    AGENT_VSOCK_PORT,
    DEVICE_WORDS,
    AgentCarrier,
    Condition,
    Device,
    DeviceKind,
    Drive,
    Health,
    KernelFormat,
    Machine,
    Nic,
    TapNic,
    UserNic,
    VmmConfig,
)
from banger.core.ports.running_guest import GuestFiles, GuestPath, GuestProcess, RunningGuest
from banger.core.ports.vmm import VmmDriver, VmmLauncher, VmmProcesses
from banger.core.ports.vmm_releases import InstalledRelease, ReleaseRequest, VmmReleases

__all__ = [
    "AGENT_PORT",
    "AGENT_SOCKET",
    "AGENT_VSOCK_PORT",
    "DEVICE_WORDS",
    "SSH_PORT",
    "AgentCarrier",
    "BuiltImage",
    "BuiltKernel",
    "Capability",
    "Condition",
    "Contribution",
    "Device",
    "DeviceKind",
    "Drive",
    "Engine",
    "EngineError",
    "Engines",
    "EvidenceKeeper",
    "Fill",
    "GuestBoot",
    "GuestConfig",
    "GuestFiles",
    "GuestNetwork",
    "GuestPath",
    "GuestProcess",
    "Guests",
    "Handle",
    "Health",
    "HostObject",
    "ImageRequest",
    "ImageSource",
    "ImageTools",
    "InstalledRelease",
    "KernelFormat",
    "KernelReference",
    "KernelRequest",
    "KernelSource",
    "Leases",
    "Machine",
    "Mount",
    "Nic",
    "PushRequest",
    "ReleaseRequest",
    "ResolvedImage",
    "RootfsFacts",
    "RunningGuest",
    "Storage",
    "TapNic",
    "UserNic",
    "VmLedger",
    "VmmConfig",
    "VmmDriver",
    "VmmLauncher",
    "VmmProcesses",
    "VmmReleases",
    "joined",
]
