"""Starting a VMM process so that it outlives the daemon, within limits, and learning how it ended."""

from banger.launch.launching import Facts, Launching
from banger.launch.port import Job, Launcher, Limits, Outcome

__all__ = ["Facts", "Job", "Launcher", "Launching", "Limits", "Outcome"]
