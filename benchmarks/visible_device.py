"""Restricts all contenders to one device, if a machine has several.

With several visible devices the trainer would wrap its model in ``DataParallel``, which would be a
different contender.
"""

from __future__ import annotations

from collections.abc import Mapping

VARIABLE = "CUDA_VISIBLE_DEVICES"


def first_visible(environment: Mapping[str, str]) -> str:
    """Return the value of ``CUDA_VISIBLE_DEVICES`` that leaves one device of an environment's."""
    return environment.get(VARIABLE, "0").partition(",")[0]
