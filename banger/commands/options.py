"""Options and arguments that several verbs share.

Names of parameters are a convention: shell completion offers VMs for ``vm`` and ``vms``, images for ``image``, and so
on (:mod:`banger.commands.completion`). ``image`` may be anything that can be pulled, ``stored_image`` is one that is
here.
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
StoredImage = Annotated[str, Argument(metavar="IMAGE", help=_ADDRESSING)]
StoredKernel = Annotated[str, Argument(metavar="KERNEL", help=_ADDRESSING)]
Destination = Annotated[str, Argument(metavar="REFERENCE", help="Where to: HOST/NAME:TAG.")]
Operation = Annotated[str, Argument(metavar="OPERATION", help="Id, or the beginning of it.")]
SeveralOperations = Annotated[list[str], Argument(metavar="OPERATION...", help="Ids, or beginnings of them.")]

AllFlag = Annotated[bool, Option("--all", help="Do it to every one there is.")]
LabelFilter = Annotated[list[str] | None, Option("--label", metavar="K=V", help="Only those with this label.")]
ForceFlag = Annotated[bool, Option("--force", "-f", help="Also one that is running: kill it first.")]
ForceArtifactFlag = Annotated[
    bool, Option("--force", "-f", help="Also one that VMs use: its name goes now, its content with the last of them.")
]
UnusedFlag = Annotated[bool, Option("--all", "-a", help="Also what has a name, if no VM uses it.")]
DryRunFlag = Annotated[bool, Option("--dry-run", "-n", help="Only tell what would go.")]
PlainHttpFlag = Annotated[bool, Option("--plain-http", help="Talk http to the registry, not https.")]
FormOption = Annotated[str, Option("--form", metavar="FORM", help="bundle (as it is) or oci (for other tools).")]
FollowFlag = Annotated[bool, Option("--follow", "-f", help="Go on printing what is added.")]
Tail = Annotated[int | None, Option("--tail", "-n", min=0, metavar="LINES", help="Only the last lines.")]
Timeout = Annotated[str | None, Option("--timeout", metavar="TIME", help="Give up after so long: 90s, 5m.")]
