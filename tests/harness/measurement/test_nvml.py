"""NVML on a machine without NVIDIA's driver, or without its Python binding."""

import sys

import pytest
import torch

from harness.errors import NotMeasurableError
from harness.measurement.nvml import joules_since_driver_load, process_bytes

CUDA = torch.device("cuda", 0)


def test_without_the_binding_the_reason_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # As if it were not installed.
    for number in (joules_since_driver_load, process_bytes):
        with pytest.raises(NotMeasurableError, match=r"pip install 'seq2seq-harness\[gpu\]'"):
            number(CUDA)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver")
def test_without_a_driver_the_reason_is_what_the_library_says() -> None:
    pytest.importorskip("pynvml")
    for number in (joules_since_driver_load, process_bytes):
        with pytest.raises(NotMeasurableError, match="NVML says: "):
            number(CUDA)
