"""Launch of one run in several processes, by torch's own launcher."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.records.run_folder import SPEC

if TYPE_CHECKING:
    from harness.spec.run_spec import RunSpec

_ENGINES = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")


def is_launched() -> bool:
    """Return whether a launcher (torchrun, accelerate) started this process as one of a group.

    Raises:
        HarnessError: the launcher asks for sharding of the model, which is not supported.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return False
    for engine in _ENGINES if os.environ["RANK"] == "0" else ():
        if os.environ.get(f"ACCELERATE_USE_{engine}", "false").lower() in ("true", "1"):
            raise HarnessError(
                f"A run cannot shard its model: the accelerate configuration asks for {engine}.",
                "Choose plain multi-GPU in it (distributed_type: MULTI_GPU). For memory, "
                "--set train.checkpointing=on, a smaller train.batch_size with more "
                "train.accumulation, or a recipe that trains less.",
            )
    return True


def launch(processes: int, spec: RunSpec, arguments: Sequence[str]) -> int:
    """Execute ``harness run`` in several processes of this machine, and wait for them.

    Args:
        processes: the number of processes; each gets a GPU, or a share of the processor's cores.
        spec: the settings, with every default filled in.
        arguments: further arguments of the command.

    Returns:
        The exit status of the first process.

    Raises:
        HarnessError: another process died, and the run ended with it.
    """
    import logging
    import uuid

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The first process reports errors; the launcher would print its own table of them too.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, SPEC)
            file.write_text(spec.to_toml(), "utf-8")
            # -P: the current folder may hold modules named like the harness's.
            command = ["-P", "-m", "harness", "run", str(file), *arguments]
            elastic_launch(config, sys.executable)(*command)
    except SignalException as signal:
        return 128 + int(signal.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if rank != 0:
            raise HarnessError(
                f"Process {rank} ended with status {failure.exitcode}, and the run with it.",
                "Repeat the same command: it resumes from the last saved state.",
            ) from error
        return failure.exitcode if failure.exitcode > 0 else 1
    return 0
