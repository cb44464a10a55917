"""Options and arguments that several verbs share.

Names of parameters are a convention: shell completion offers VMs for ``vm`` and ``vms``, images for ``image``, and so
on (:mod:`banger.commands.completion`). ``image`` may be anything that can be pulled, ``stored_image`` is one that is
here.
"""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

_ADDRESSING = "Name, ID, or a unique prefix of either."

VmArgument = Annotated[str, Argument(metavar="VM", help=_ADDRESSING)]
VmArguments = Annotated[list[str] | None, Argument(metavar="[VM...]", help=_ADDRESSING)]
SeveralVms = Annotated[list[str], Argument(metavar="VM...", help=_ADDRESSING)]
SeveralImages = Annotated[list[str], Argument(metavar="IMAGE...", help=_ADDRESSING)]
SeveralKernels = Annotated[list[str], Argument(metavar="KERNEL...", help=_ADDRESSING)]
SnapshotArgument = Annotated[str, Argument(metavar="SNAPSHOT", help=_ADDRESSING)]
SeveralSnapshots = Annotated[list[str], Argument(metavar="SNAPSHOT...", help=_ADDRESSING)]
StoredImage = Annotated[str, Argument(metavar="IMAGE", help=_ADDRESSING)]
StoredKernel = Annotated[str, Argument(metavar="KERNEL", help=_ADDRESSING)]
Destination = Annotated[str, Argument(metavar="REFERENCE", help="Destination: HOST/NAME:TAG.")]
Operation = Annotated[str, Argument(metavar="OPERATION", help="ID, or a unique prefix of it.")]
SeveralOperations = Annotated[list[str], Argument(metavar="OPERATION...", help="IDs, or unique prefixes of them.")]

AllFlag = Annotated[bool, Option("--all", help="Apply to all of them.")]
LabelFilter = Annotated[list[str] | None, Option("--label", metavar="K=V", help="Only those with this label.")]
ForceFlag = Annotated[bool, Option("--force", "-f", help="Delete running VMs too, killing them first.")]
ForceArtifactFlag = Annotated[
    bool,
    Option("--force", "-f", help="Also if VMs use it: its name is removed now, its content with the last of them."),
]
UnusedFlag = Annotated[bool, Option("--all", "-a", help="Also delete named ones that no VM uses.")]
DryRunFlag = Annotated[bool, Option("--dry-run", "-n", help="Only show what would be deleted.")]
PlainHttpFlag = Annotated[bool, Option("--plain-http", help="Use HTTP instead of HTTPS.")]
FormOption = Annotated[str, Option("--form", metavar="FORM", help="bundle (for banger) or oci (for other tools).")]
FollowFlag = Annotated[bool, Option("--follow", "-f", help="Keep printing new output.")]
Tail = Annotated[int | None, Option("--tail", "-n", min=0, metavar="LINES", help="Show only the last lines.")]
Timeout = Annotated[str | None, Option("--timeout", metavar="TIME", help="Give up after this time: 90s, 5m.")]
