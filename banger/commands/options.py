"""Options and arguments that several verbs share.

Their names are a convention: shell completion offers VMs for ``vm`` and ``vms``, images for ``image``, and so on
(:mod:`banger.commands.completion`).
"""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

_ADDRESSING = "Name, id, or the beginning of either."

VmArgument = Annotated[str, Argument(metavar="VM", help=_ADDRESSING)]
VmArguments = Annotated[list[str] | None, Argument(metavar="[VM...]", help=_ADDRESSING)]
SeveralVms = Annotated[list[str], Argument(metavar="VM...", help=_ADDRESSING)]
SeveralImages = Annotated[list[str], Argument(metavar="IMAGE...", help=_ADDRESSING)]
SeveralKernels = Annotated[list[str], Argument(metavar="KERNEL...", help=_ADDRESSING)]
Operation = Annotated[str, Argument(metavar="OPERATION", help="Id, or the beginning of it.")]
SeveralOperations = Annotated[list[str], Argument(metavar="OPERATION...", help="Ids, or beginnings of them.")]

AllFlag = Annotated[bool, Option("--all", help="Do it to every one there is.")]
LabelFilter = Annotated[list[str] | None, Option("--label", metavar="K=V", help="Only those with this label.")]
ForceFlag = Annotated[bool, Option("--force", "-f", help="Also one that is running: kill it first.")]
FollowFlag = Annotated[bool, Option("--follow", "-f", help="Go on printing what is added.")]
Tail = Annotated[int | None, Option("--tail", "-n", min=0, metavar="LINES", help="Only the last lines.")]
Timeout = Annotated[str | None, Option("--timeout", metavar="TIME", help="Give up after so long: 90s, 5m.")]
