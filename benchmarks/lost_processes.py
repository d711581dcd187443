"""Check that runs of several processes lose nothing when their processes are killed.

    python benchmarks/lost_processes.py --help

The program trains a run undisturbed. It starts the same run into another folder with
--max-restarts, and kills one of its processes by SIGKILL at a random moment after each start: a
random rank, while it starts, measures, trains, evaluates or writes. Seven of ten moments are
counted from where the run trains again, since starting takes longer than such a small training; the
others from the start, over four times as long. With --aim all moments are counted from the
beginning of one phase. --parallel fsdp divides the model among the processes. When the run has
ended, the predictions, the training history and the weights must be equal to the bit, the folder
must hold one run and no hidden file, a message must have named each killed process, and no process
may be left. This is repeated with new folders until there were enough kills.

The check needs work to lose. It fails unless at least a third of the kills hit a training or an
evaluation, or with --aim at least half of them that phase, and unless every rank was killed. The
file of results keeps the last check of each kind.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from demands import demand
from launched_run import LaunchedRun

from harness.measurement.fingerprint import fingerprint
from harness.records.atomic import write_text
from harness.records.phase import Phase
from harness.records.run_folder import HISTORY, PREDICTIONS, StoredRun, read_runs

FILE = "lost_processes.json"
WEIGHTS = "weights.safetensors"
START = "start"
"""Name of the time before a process says that it is in a phase."""
COSTLY = (Phase.TRAIN, Phase.EVALUATE, Phase.MERGE_CHECK)
"""Phases whose work a kill could lose."""
SETTINGS = (
    "train.max_steps=40",
    "train.batch_size=4",
    "train.warmup_steps=5",
    "train.eval_every_epochs=0.5",
    "train.eval_examples=8",
    "greedy.max_new_tokens=8",
    "test.examples=24",
    "test.beams=1",
    "test.max_new_tokens=16",
    "test.batch_size=4",
    "probe.baseline=off",
    "probe.warmup_steps=1",
    "probe.steps=1",
    "probe.rounds=2",
    "probe.inference=false",
)
"""Settings of the run: a minute, in which every phase takes its part."""
LONG_EVALUATION = ("test.examples=96", "test.beams=4", "test.max_new_tokens=48")
"""Further settings if kills are aimed at the evaluation: several of them must find it at work."""


@dataclass(frozen=True)
class Kill:
    """A process that was killed.

    Attributes:
        run: number of the run.
        rank: rank of the process.
        seconds: time since the group was complete, or since it trains again.
        phase: the phase that the run was in.
    """

    run: int
    rank: int
    seconds: float
    phase: str


def phase_now(log: Path) -> str:
    """Return the phase that a run has reached since its last start."""
    _, _, text = log.read_text("utf-8").rpartition(" Restart ")
    return next((ln for ln in reversed(text.splitlines()) if ln in set(Phase)), START)


def kill_at_random(
    run: LaunchedRun,
    number: int,
    kills: int,
    processes: int,
    longest: float,
    rng: random.Random,
    aim: Phase | None = None,
) -> list[Kill]:
    """Kill a process after each start of a group, and return the kills.

    Args:
        run: the run.
        number: number of the run.
        kills: largest number of kills.
        processes: number of processes of the group.
        longest: the longest time to wait, in seconds.
        rng: draws ranks and moments.
        aim: the phase in which all processes are to be killed; None aims most at ``COSTLY``.
    """
    phases = (aim,) if aim else COSTLY
    killed: list[Kill] = []
    victims: set[int] = set()
    while run.running and len(killed) < kills:
        group = run.ranks()
        if len(group) < processes or victims & {process.pid for process in group.values()}:
            time.sleep(0.05)
            continue
        aimed = rng.random() < 0.7 or aim is not None
        rank, seconds = rng.randrange(processes), rng.uniform(0, longest if aimed else 4 * longest)
        while run.running and aimed and phase_now(run.log) not in phases:
            time.sleep(0.1)
        limit = time.monotonic() + seconds
        while run.running and time.monotonic() < limit:
            time.sleep(0.02)
        try:
            if group[rank].status() == psutil.STATUS_ZOMBIE:
                break  # The run is about to end.
            phase = phase_now(run.log)
            group[rank].kill()
        except psutil.NoSuchProcess:
            break  # The run has ended.
        victims = {process.pid for process in group.values()}
        killed.append(Kill(number, rank, round(seconds, 1), phase))
        print(f"killed process {rank} after {seconds:.1f} s: {phase}", flush=True)
    return killed


def differences(calm: StoredRun, killed: StoredRun) -> list[str]:
    """Return what a killed run has lost."""
    files = [
        name
        for name in (PREDICTIONS, HISTORY, WEIGHTS)
        if (calm.folder / name).read_bytes() != (killed.folder / name).read_bytes()
    ]
    names = [sorted(p.name for p in run.folder.iterdir()) for run in (calm, killed)]
    problems = [f"{name} differs" for name in files]
    problems += ["the folders hold different files"] if names[0] != names[1] else []
    if calm.report.quality != killed.report.quality:
        problems.append("the scores differ")
    return problems


def one_run(results: Path) -> StoredRun:
    """Return the only run of a folder; end the program if there is something else in it."""
    (run,), _ = read_runs(results)
    others = [path.name for path in results.iterdir() if path != run.folder]
    if others:
        raise SystemExit(f"left behind in {results}: {others}")
    return run


def lost(run: LaunchedRun, status: int, killed: list[Kill], processes: int) -> list[str]:
    """Return what went wrong in a run that has ended, apart from its results."""
    problems = [f"the exit status is {status}"] if status else []
    problems += [f"a process is left: {process}" for process in run.left()]
    named = [
        rank
        for line in run.log.read_text("utf-8").splitlines()
        for rank in range(processes)
        if line.startswith(f"Process {rank} was killed by SIGKILL. Restart ")
    ]
    ranks = [kill.rank for kill in killed]
    return problems if named == ranks else [*problems, f"killed {ranks}, messages name {named}"]


def settings_of(options: argparse.Namespace) -> list[str]:
    """Return the settings of the run."""
    parallel = [f"train.parallel={options.parallel}"]
    longer = LONG_EVALUATION if options.aim == Phase.EVALUATE else ()
    return [*SETTINGS, *parallel, *longer, *options.set]


def check(out: Path, words: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Run undisturbed and killed, and compare; return what is to be recorded.

    Args:
        out: the folder of all runs.
        words: arguments of ``harness run``.
        options: the options of this program.
    """
    processes = options.nproc
    calm = LaunchedRun(words, out / "undisturbed", out / "undisturbed.log")
    demand(calm.finish() == 0, f"the undisturbed run failed, see {calm.log}")
    uninterrupted = one_run(out / "undisturbed")
    print("the undisturbed run has ended", flush=True)
    rng = random.Random(options.seed)
    kills: list[Kill] = []
    number = 0
    while len(kills) < options.kills:
        number += 1
        left = options.kills - len(kills)
        folder = out / f"killed-{number}"
        restarts = ["--max-restarts", str(left)]
        run = LaunchedRun([*words, *restarts], folder, folder.with_suffix(".log"))
        killed = kill_at_random(run, number, left, processes, options.longest, rng, options.aim)
        problems = lost(run, run.finish(), killed, processes)
        problems += differences(uninterrupted, one_run(folder))
        if problems:
            raise SystemExit(f"LOST in {folder}: {'; '.join(problems)}")
        kills += killed
        print(f"run {number}: {len(killed)} kills, nothing lost", flush=True)
    costly = sum(kill.phase in COSTLY for kill in kills)
    demand(costly * 3 >= len(kills), f"only {costly} kills could lose a training")
    hit = sum(kill.phase == options.aim for kill in kills)
    demand(not options.aim or hit * 2 >= len(kills), f"only {hit} kills in {options.aim}")
    ranks = Counter(kill.rank for kill in kills)
    demand(len(ranks) == processes, f"only the ranks {sorted(ranks)} were killed")
    training = uninterrupted.report.training
    shared_by = training.parallel if training else None
    demand(shared_by == options.parallel, f"the processes shared the model by {shared_by}")
    return {
        "processes": processes,
        "recipe": options.compressor,
        "parallel": options.parallel,
        "aim": options.aim,
        "settings": settings_of(options),
        "longest_seconds": options.longest,
        "runs": number,
        "kills": [asdict(kill) for kill in kills],
        "kills_by_phase": Counter(kill.phase for kill in kills),
        "kills_by_rank": ranks,
        "equal": True,
    }


def main() -> None:
    """Run the check and write its record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="default: 20")
    parser.add_argument("--nproc", type=int, default=2, help="default: 2")
    parser.add_argument("--seed", type=int, default=0, help="seeds ranks and moments (default: 0)")
    parser.add_argument(
        "--longest",
        type=float,
        default=12.0,
        help="longest time to wait for a kill, in seconds (default: 12)",
    )
    parser.add_argument("--compressor", default="lora_ff+lprun")
    parser.add_argument("--parallel", choices=("ddp", "fsdp"), default="ddp", help="default: ddp")
    parser.add_argument(
        "--aim",
        type=Phase,
        choices=COSTLY,
        help="phase in which all processes are to be killed (default: most in any of these)",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--work", type=Path, help="folder of the runs (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    work = options.work or Path(tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    words = ["--nproc", str(options.nproc), "--compressor", options.compressor]
    words += [word for setting in settings_of(options) for word in ("--set", setting)]
    record = check(work, [*words, "--snapshot-every", "0"], options)
    record["fingerprint"] = fingerprint(torch.device("cpu"), torch.float32, "packed").model_dump()
    file = options.out / FILE
    records = json.loads(file.read_text("utf-8")) if file.exists() else {}
    records[", ".join(filter(None, (options.parallel, options.aim)))] = record
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(records, indent=1) + "\n")
    phases = ", ".join(f"{count} in {phase}" for phase, count in record["kills_by_phase"].items())
    print(f"{len(record['kills'])} kills, runs: {record['runs']}; {phases}. Nothing was lost.")


if __name__ == "__main__":
    main()
