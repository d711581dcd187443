"""Check that a run of several processes loses nothing when they are killed again and again.

    python benchmarks/lost_processes.py --help

The program trains a run undisturbed. It starts the same run into another folder with
--max-restarts, and kills one of its processes by SIGKILL at a random moment after each start: a
random rank, while it loads, measures, trains, evaluates or writes. At the end the predictions, the
training history and the weights must be equal to the bit, the folder must hold one run and no
hidden file, a message must have named each killed process, and no process may be left.

The check needs work to lose. It fails unless at least half of the kills hit a run that had begun to
train.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from demands import demand
from killing import family

from harness.records.run_folder import HISTORY, PREDICTIONS, StoredRun, read_runs

WEIGHTS = "weights.safetensors"
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


class LaunchedRun:
    """A run in several processes, which can be killed one by one.

    Args:
        words: arguments of ``harness run``.
        results: the folder of all runs.
        log: receives the messages.
    """

    def __init__(self, words: list[str], results: Path, log: Path) -> None:
        command = [sys.executable, "-m", "harness", "run", *words, "--out", str(results)]
        self._log = log.open("w", encoding="utf-8")
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self._log)
        self._seen: dict[int, psutil.Process] = {}

    @property
    def running(self) -> bool:
        """True until the command has ended."""
        return self._process.poll() is None

    def ranks(self) -> dict[int, psutil.Process]:
        """Return the processes of the group by their rank."""
        found = {}
        for process in family(self._process.pid)[1:]:
            self._seen[process.pid] = process
            try:
                if process.ppid() == self._process.pid:
                    found[int(process.environ()["RANK"])] = process
            except (psutil.NoSuchProcess, psutil.ZombieProcess, KeyError):
                continue  # It is about to begin, or has ended.
        return found

    def finish(self) -> int:
        """Wait for the end; return the exit status."""
        while self.running:
            self.ranks()
            time.sleep(0.2)
        self._log.close()
        return self._process.returncode

    def left(self) -> list[psutil.Process]:
        """Return the processes that still exist after ten seconds."""
        alive: list[psutil.Process] = psutil.wait_procs(list(self._seen.values()), timeout=10)[1]
        return alive


def kill_at_random(
    run: LaunchedRun, kills: int, processes: int, longest: float, seed: int
) -> list[int]:
    """Kill a process after each start of a group, and return the ranks that were killed.

    Args:
        run: the run.
        kills: number of kills.
        processes: number of processes of the group.
        longest: the longest time to wait after a start, in seconds.
        seed: seeds ranks and moments.
    """
    rng = random.Random(seed)
    killed: list[int] = []
    victims: set[int] = set()
    while run.running and len(killed) < kills:
        group = run.ranks()
        if len(group) < processes or victims & {process.pid for process in group.values()}:
            time.sleep(0.05)
            continue
        rank = rng.randrange(processes)
        limit = time.monotonic() + rng.uniform(0, longest)
        while run.running and time.monotonic() < limit:
            time.sleep(0.02)
        try:
            group[rank].kill()
        except psutil.NoSuchProcess:
            break  # The run has ended.
        victims = {process.pid for process in group.values()}
        killed.append(rank)
        print(f"{len(killed)}. killed process {rank}", flush=True)
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


def main() -> None:
    """Run both and compare them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="default: 20")
    parser.add_argument("--nproc", type=int, default=2, help="default: 2")
    parser.add_argument("--seed", type=int, default=0, help="seeds ranks and moments (default: 0)")
    parser.add_argument("--compressor", default="lora_ff+lprun")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="folder of both runs (default: a temporary one)")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    out = options.out or Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    words = ["--nproc", str(options.nproc), "--compressor", options.compressor]
    words += [word for setting in (*SETTINGS, *options.set) for word in ("--set", setting)]
    words += ["--snapshot-every", "0"]

    began = time.monotonic()
    calm = LaunchedRun(words, out / "undisturbed", out / "undisturbed.log")
    demand(calm.finish() == 0, f"the undisturbed run failed, see {out / 'undisturbed.log'}")
    seconds = time.monotonic() - began
    print(f"Undisturbed: {seconds:.0f} s.", flush=True)
    words += ["--max-restarts", str(options.kills)]
    run = LaunchedRun(words, out / "killed", out / "killed.log")
    killed = kill_at_random(run, options.kills, options.nproc, seconds, options.seed)
    status = run.finish()

    log = (out / "killed.log").read_text("utf-8")
    problems = [f"the exit status is {status}"] if status else []
    problems += [f"a process is left: {process}" for process in run.left()]
    named = [
        rank
        for line in log.splitlines()
        for rank in range(options.nproc)
        if line.startswith(f"Process {rank} was killed by SIGKILL. Restart ")
    ]
    if named != killed:
        problems.append(f"killed {killed}, and messages name {named}")
    uninterrupted, resumed = (one_run(out / name) for name in ("undisturbed", "killed"))
    problems += differences(uninterrupted, resumed)
    phases = [resumption.phase for resumption in resumed.report.resumed]
    in_training = sum(phase in ("train", "evaluate", "hand-over") for phase in phases)
    print(f"{len(killed)} kills; resumed in: {', '.join(phases)}.")
    demand(in_training * 2 >= len(killed), f"only {in_training} kills could lose a training")
    for problem in problems:
        print(f"LOST: {problem}")
    if problems or len(killed) < options.kills:
        raise SystemExit(f"{len(killed)} of {options.kills} kills; see {out}")
    print("Nothing was lost.")


if __name__ == "__main__":
    main()
