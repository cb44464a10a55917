"""Starting a VMM process that outlives the daemon, with limits, and finding out how it ended."""

from banger.core.exits import Outcome
from banger.launch.jail import Confinement, ForHelper, ForJailer, Opened, Put
from banger.launch.launching import Facts, Launching
from banger.launch.port import Job, Launcher, Limits

__all__ = [
    "Confinement",
    "Facts",
    "ForHelper",
    "ForJailer",
    "Job",
    "Launcher",
    "Launching",
    "Limits",
    "Opened",
    "Outcome",
    "Put",
]
