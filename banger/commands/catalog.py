"""``banger catalog refresh``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from typer import Argument, Context, Option

from banger.commands.session import CliSession
from banger.core.wire.system import RefreshCatalogBody

#: A server that answers slowly is asked again a few times.
_TIMEOUT_S = 120.0


def refresh(
    ctx: Context,
    catalog_source: Annotated[str, Argument(metavar="SOURCE", help="https://… or oci:HOST/NAME[:TAG][@sha256:HEX].")],
    *,
    digest: Annotated[
        str, Option(metavar="sha256:HEX", help="Expected digest of the file, or of the registry's manifest.")
    ] = "",
    name: Annotated[
        str, Option(metavar="NAME", help="Name of its file in catalog.d; by default, taken from the source.")
    ] = "",
) -> None:
    """Fetch a catalog, verified against a pinned digest.

    Nothing changes unless the whole catalog is valid. Signatures are not verified: the digest has to come to you by a
    way that you trust.
    """
    session: CliSession = ctx.obj
    body = RefreshCatalogBody(catalog_source, digest, name)
    done = session.client.call("POST", "/v1/catalog/refresh", body=body, timeout_s=_TIMEOUT_S)
    session.show_document(done, "".join(f"{entry}\n" for entry in [*done["images"], *done["kernels"]]))
    session.tell(f"{_count(done['images'], 'image')} and {_count(done['kernels'], 'kernel')} in {done['path']}")


def _count(names: Sequence[str], noun: str) -> str:
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"
