"""Whether the long forms of tests are wanted, as `make soak` asks for them."""

from __future__ import annotations

import os

#: `make soak` and `make fuzz` choose this profile; a test of random input has its long form there too.
IS_SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
