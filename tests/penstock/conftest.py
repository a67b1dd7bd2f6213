"""Property tests repeat themselves: `HYPOTHESIS_PROFILE=default` looks for new examples."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: how long an example takes says something of the machine only.
settings.register_profile("repeatable", derandomize=True, print_blob=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
