"""The page of results, from records like those of the steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

Import = Callable[[str], ModuleType]


def write(folder: Path, **records: Any) -> None:
    folder.mkdir(parents=True)
    for name, record in records.items():
        (folder / f"{name}.json").write_text(json.dumps(record))


SPEED = {
    "relative": 2.101,
    "relative_ci": [2.05, 2.154],
    "noise_floor": 1.012,
    "share_of_limit": 0.834,
    "tokens_per_s": 123456.7,
}
MEMORY = {"peak_bytes": 4.1e9, "relative": 0.5}
ROW = {"recipe": "lora_ff+lprun", "status": "ok", "speed": SPEED, "memory": MEMORY}
FULL = {"recipe": "full", "status": "oom", "speed": None, "memory": None}
WORKLOAD = "t5-large 8 x 512/128"
KERNELS = {
    "launches": 2246,
    "step_ms": 35.0,
    "host_ms": 30.0,
    "device_ms": 20.0,
    "idle_ms": 15.0,
    "device_ms_by_kind": {"products": 8.0},
}


def test_measurements_are_shown_with_the_paper_and_estimates(
    module: Import, tmp_path: Path
) -> None:
    write(
        tmp_path / "nvidia-h100",
        card={"name": "NVIDIA H100", "cuda": "13.0", "fingerprint": {"driver": "580"}},
        steps={
            "tiny": False,
            "steps": {"tests": {"status": "ok", "seconds": 41.2, "summary": "14 passed | 0"}},
        },
        speed={
            "cases": {
                f"{WORKLOAD} lora_ff+lprun": {"workload": WORKLOAD, "row": ROW},
                f"{WORKLOAD} full": {"workload": WORKLOAD, "row": FULL},
                f"{WORKLOAD} lprun": {"failure": "RuntimeError: no kernel", "seconds": 1},
            }
        },
        kernels={"cases": {"t5-large lora_ff+lprun harness": KERNELS}},
    )
    write(tmp_path / "cpu-tiny", card={"name": "cpu"}, steps={"tiny": True, "steps": {}})
    page = module("gpu.readme").write_readme(tmp_path).read_text()
    assert page == (tmp_path / "README.md").read_text()
    rows = [[cell.strip() for cell in text.split("|")[1:-1]] for text in page.splitlines()]
    # The paper's Table 4b: 206 % and 11.66 GB.
    assert [
        WORKLOAD,
        "lora_ff+lprun",
        "210 %",
        "205 % to 215 %",
        "101 %",
        "83 %",
        "123,457",
        "58,761",
        "4.10",
        "8.20",
        "206 %",
        "11.7",
    ] in rows
    assert [WORKLOAD, "full (oom)", *"--------", "100 %", "31.0"] in rows
    assert ["the tests that need a GPU", "ok", "41.2", "14 passed / 0"] in rows
    (kernels,) = [row for row in rows if row[:1] == ["t5-large lora_ff+lprun harness"]]
    assert kernels[1:8] == ["2,246", "2,069", "35.0", "30.0", "20.0", "18", "8.0"]
    assert kernels[-1] == "15.0"
    assert "CUDA 13.0" in page
    assert "driver 580" in page
    assert "## cpu" not in page  # A rehearsal.


def test_the_page_of_a_rehearsal_says_so(module: Import, tmp_path: Path) -> None:
    write(tmp_path / "cpu-tiny", card={"name": "cpu"}, steps={"tiny": True, "steps": {}})
    page = module("gpu.readme").write_readme(tmp_path / "cpu-tiny").read_text()
    assert "these numbers mean nothing" in page
    assert page.count("| not run |") == 9
