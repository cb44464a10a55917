"""Messages between the supervisor and the owners: commands (imperative) and facts (past tense).

All are frozen, because pykka passes messages by reference. Two equal commands are the same request: while the
first is in flight the second joins it, unless the command says ``joinable = False``.
"""

from banger.actors.messages.commands import Command, OwnerKey, OwnerKind
from banger.actors.messages.drivers import DriverCommand, InstallDriver, RemoveDriver
from banger.actors.messages.facts import BeginShutdown, CommandFinished, OwnerTerminated, Perform, Respawn, Submit
from banger.actors.messages.host import Prune, ReconcileHost
from banger.actors.messages.images import (
    CommitVm,
    DeleteImage,
    ExportImage,
    ImageCommand,
    PromoteImage,
    PullImage,
    PushImage,
    RegisterImage,
    TagImage,
)
from banger.actors.messages.kernels import DeleteKernel, KernelCommand, PullKernel, PushKernel
from banger.actors.messages.snapshots import Copy, CreateSnapshot, DeleteSnapshot, ForkVm, SnapshotCommand
from banger.actors.messages.vms import (
    CreateVm,
    DeleteVm,
    GrowVm,
    KeepVm,
    KillVm,
    PauseVm,
    ReconcileVm,
    RestartVm,
    ResumeVm,
    RewindVm,
    SavedVm,
    SaveVm,
    StartVm,
    StopVm,
    SuspendVm,
    UseDisk,
    VmCommand,
    WakeVm,
)

__all__ = [
    "BeginShutdown",
    "Command",
    "CommandFinished",
    "CommitVm",
    "Copy",
    "CreateSnapshot",
    "CreateVm",
    "DeleteImage",
    "DeleteKernel",
    "DeleteSnapshot",
    "DeleteVm",
    "DriverCommand",
    "ExportImage",
    "ForkVm",
    "GrowVm",
    "ImageCommand",
    "InstallDriver",
    "KeepVm",
    "KernelCommand",
    "KillVm",
    "OwnerKey",
    "OwnerKind",
    "OwnerTerminated",
    "PauseVm",
    "Perform",
    "PromoteImage",
    "Prune",
    "PullImage",
    "PullKernel",
    "PushImage",
    "PushKernel",
    "ReconcileHost",
    "ReconcileVm",
    "RegisterImage",
    "RemoveDriver",
    "Respawn",
    "RestartVm",
    "ResumeVm",
    "RewindVm",
    "SaveVm",
    "SavedVm",
    "SnapshotCommand",
    "StartVm",
    "StopVm",
    "Submit",
    "SuspendVm",
    "TagImage",
    "UseDisk",
    "VmCommand",
    "WakeVm",
]
