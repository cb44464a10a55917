"""``banger image lint``."""

from __future__ import annotations

from typing import Annotated

from typer import Context, Option

from banger.client import path_of
from banger.commands.options import StoredImage
from banger.commands.session import CliSession
from banger.core.errors import EXIT_CODES, ErrorKind
from banger.render.views import finding_columns

#: Reading every inode of a large image takes a while on a slow disk.
_TIMEOUT_S = 600.0


def lint(
    ctx: Context,
    stored_image: StoredImage,
    stored_kernel: Annotated[str, Option("--kernel", metavar="KERNEL", help="Kernel to check it against.")] = "",
) -> int:
    """Check an image for problems before booting it."""
    session: CliSession = ctx.obj
    query = {"kernel": stored_kernel}
    report = session.client.call("GET", path_of("images", stored_image, "lint"), query, timeout_s=_TIMEOUT_S)
    if session.json:
        session.show_document(report, "")
    else:
        session.show_list(report["findings"], finding_columns(report["findings"]), key="code")
    if report["kernel"] and not report["kernel_config"]:
        session.tell(f'what kernel "{report["kernel"]}" was built with is not known')
    return EXIT_CODES[ErrorKind.INVALID] if report["errors"] else 0
