"""Run the measurements: print a table, write ``bench/latest.json``. ``make bench`` calls it without arguments."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

from bench import (
    booting,
    channel,
    forking,
    jailed,
    listing,
    pulling,
    rewinding,
    scaling,
    taps,
    templates,
    uplinks,
    vmms,
)
from bench.measure import LEAST_ROUNDS, Comparison, table

BENCHES = {
    "listing": listing.run,
    "booting": booting.run,
    "channel": channel.run,
    "forking": forking.run,
    "jailed": jailed.run,
    "pulling": pulling.run,
    "rewinding": rewinding.run,
    "scaling": scaling.run,
    "taps": taps.run,
    "templates": templates.run,
    "uplinks": uplinks.run,
    "vmms": vmms.run,
}
LATEST = Path(__file__).with_name("latest.json")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line to namespace."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("benches", nargs="*", metavar="BENCH", help=f"any of {', '.join(BENCHES)} (default: all)")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help=f"runs of each side, at least {LEAST_ROUNDS}")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.benches) - set(BENCHES):
        parser.error(f"there is no bench {', '.join(sorted(unknown))}")
    return chosen


def main() -> int:
    """Measure everything; 1 if a promise is not kept or could not be measured, and the last lines say which and why."""
    arguments = parse_arguments()
    results: list[Comparison] = []
    complaints: list[str] = []
    root = Path(tempfile.mkdtemp(prefix="bgb-", dir="/tmp"))
    try:
        for name in arguments.benches or BENCHES:
            print(f"measuring {name} …", file=sys.stderr)
            try:
                results += BENCHES[name](root, arguments.rounds)
            except Exception as error:  # noqa: BLE001  # the others are measured all the same
                traceback.print_exception(error)
                complaints.append(f"not measured: {name}: {error}")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(table(results))
    LATEST.write_text(json.dumps([result.to_dict() for result in results], indent=2) + "\n")
    complaints += [result.complaint for result in results if not result.met]
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
