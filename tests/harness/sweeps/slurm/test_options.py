"""Options of the executor: what is valid, and what submitit makes of them."""

from __future__ import annotations

import pytest

from harness import HarnessError
from harness.api.options import validate
from harness.api.parts import read_part
from harness.sweeps.slurm.options import SlurmOptions, seconds


def options(text: str) -> SlurmOptions:
    return validate(SlurmOptions, read_part(text)[1], "executor 'slurm'")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, 0),
        ("90", 90 * 60),
        ("90:30", 90 * 60 + 30),
        ("4:00:00", 4 * 3600),
        ("1-12", 36 * 3600),
        ("1-12:30", 36 * 3600 + 1800),
        ("2-00:00:05", 2 * 86400 + 5),
    ],
)
def test_a_time_limit_is_read_as_slurm_reads_it(limit: str | None, expected: int) -> None:
    assert seconds(limit) == expected


@pytest.mark.parametrize(
    "text",
    [
        "time=4h",
        "time=1:2:3:4",
        "memory=lots",
        "partition=a b",
        "account=$(id)",
        "gpus=-1",
        "array_parallelism=0",
        "poll=0",
    ],
)
def test_a_bad_value_is_an_error_that_names_the_option(text: str) -> None:
    name = text.partition("=")[0]
    with pytest.raises(HarnessError, match=rf"executor 'slurm': option {name}="):
        options(f"slurm:{text}")


def test_a_misspelled_option_is_an_error_with_the_right_one() -> None:
    with pytest.raises(HarnessError, match="has no option 'partitions'") as raised:
        options("slurm:partitions=gpu")
    assert "partition" in (raised.value.hint or "")


def test_the_options_become_lines_of_the_batch_script() -> None:
    pytest.importorskip("submitit")
    from submitit.slurm.slurm import _make_sbatch_string

    given = options(
        "slurm:partition=gpu,gpus=2,gpu_type=a100,cpus=4,memory=32G,time=0:02:00,account=lab,"
        "qos=low,constraint=a|b,exclusive=true,array_parallelism=3"
    )
    script = _make_sbatch_string("true", "logs", map_count=9, **given.parameters())
    lines = {line.removeprefix("#SBATCH --") for line in script.splitlines() if "SBATCH" in line}
    assert lines >= {
        "partition=gpu",
        "gpus-per-node=a100:2",
        "cpus-per-task=4",
        "mem=32G",
        "time=0:02:00",
        "account=lab",
        "qos=low",
        "constraint='a|b'",
        "exclusive",
        "array=0-8%3",
        "requeue",
        # Within a short limit, there is time to work before the warning.
        "signal=USR2@30",
    }
    assert not [line for line in lines if line.startswith("wckey")]
    assert "srun --unbuffered" in script
    assert "--cpus-per-task=4 true" in script


def test_a_job_of_several_processes_requests_what_all_of_them_need_on_one_node() -> None:
    pytest.importorskip("submitit")
    from submitit.slurm.slurm import _make_sbatch_string

    given = options("slurm:gpus=1,gpu_type=a100,cpus=4,memory=32G")
    script = _make_sbatch_string("true", "logs", **given.parameters(processes=8))
    lines = {line.removeprefix("#SBATCH --") for line in script.splitlines() if "SBATCH" in line}
    assert lines >= {"nodes=1", "gpus-per-node=a100:8", "cpus-per-task=32", "mem=256G"}
    assert "--cpus-per-task=32 true" in script
    assert options("slurm:gpus=1").parameters(processes=8)["mem"] is None
