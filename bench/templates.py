"""What a template saves: `vm run IMAGE -- true` from one, against the same with `--cold`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Comparison, interleaved, timed
from tests.support.daemon import BangerHome, banger_home
from tests.support.waiting import eventually

#: Of a boot, and in all on an emulated machine.
RATIO, AIM_S = 0.25, 0.6
_PATIENCE_S = 600.0


def run(root: Path, rounds: int) -> Iterator[Comparison]:
    """Both run the same command to its end, in a VM of their own that is deleted afterwards."""
    with banger_home(root, BANGER_RUN_TEMPLATES="auto") as home:
        for _ in range(2):
            _seconds(home)
        eventually(lambda: home.json("system", "df")["templates_bytes"], _PATIENCE_S, "a template is made")
        home.run("vm", "run", "debian", "--name", "checked", "--detach").ok()
        assert home.json("vm", "show", "checked")["from_template"]
        home.run("vm", "delete", "--force", "checked").ok()
        medians = interleaved({"template": lambda: _seconds(home), "cold": lambda: _seconds(home, "--cold")}, rounds)
    name = "vm run -- true"
    yield Comparison(f"{name} from a template vs --cold", medians["template"], medians["cold"], RATIO)
    yield Comparison(f"{name} from a template vs the aim", medians["template"], AIM_S, math.inf)


def _seconds(home: BangerHome, *options: str) -> float:
    seconds = timed(home.cli.argv("vm", "run", "debian", "--name", "measured", *options, "--", "true"), home.cli.env)
    home.run("vm", "delete", "--force", "measured").ok()
    return seconds
