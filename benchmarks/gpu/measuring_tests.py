"""Step 6: tests marked ``gpu`` that measure time or memory, when nothing else uses the device."""

from __future__ import annotations

import sys
from functools import partial

from gpu.marked_tests import run_tests
from gpu.step import run_step

run = partial(run_tests, measuring=True)

if __name__ == "__main__":
    sys.exit(run_step(run))
