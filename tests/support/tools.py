"""A pytest plugin: settings of the libraries that tests use. An emulated machine leaves it out, with seconds of imports."""

from __future__ import annotations

import os

import freezegun
import hypothesis

# A frozen monotonic clock would keep `ask(timeout=…)` and deadlines of other threads from ever running out.
freezegun.configure(extend_ignore_list=["pykka", "banger.core.cancel"])  # type: ignore[attr-defined]  # missing in freezegun's stubs

hypothesis.settings.register_profile("short", max_examples=60, deadline=None)
hypothesis.settings.register_profile("soak", max_examples=3000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))
