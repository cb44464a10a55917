"""Pulling the image of a new VM, by the option ``--pull``: always, missing or never."""

from __future__ import annotations

from banger.client import path_of
from banger.commands.session import CliSession
from banger.core.wire.images import PullImageBody
from banger.core.wire.reading import one_of


def bring_image(session: CliSession, image: str, when: str) -> None:
    """Fetch ``image`` anew (``always``), or see that it is here (``never``); the daemon brings what is missing.

    Raises:
        BangerError: ``not_found`` if it is not here and must not be fetched; what a pull fails with.
    """
    match one_of("--pull", when, ("missing", "always", "never")):
        case "always":
            session.long("POST", "/v1/images/pull", body=PullImageBody(image))
        case "never":
            session.client.get(path_of("images", image))
