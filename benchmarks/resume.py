"""Check that a killed sweep gives the results of an undisturbed one.

    python benchmarks/resume.py --help

The program runs one sweep undisturbed. It runs the same sweep into another folder and kills it
there: the sweep and all of its processes at once, by SIGKILL, in the phases of --kill-in. The same
command restarts it each time. Then the program compares the two folders. Ids, parameters, scores,
histories and predictions of the runs must be equal to the bit. Peak memory must agree within 5 %,
and the intervals of each recipe's relative speed, widened by the noise floor, must overlap.

The check needs unfinished work to lose and results to compare. It fails if a sweep cannot be killed
with half-finished work, and if undisturbed runs failed, predicted nothing or all predicted the
same.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from demands import demand
from killing import STEPS_BEFORE, Killer, Sweep

from harness.records.run_folder import HISTORY, PREDICTIONS, StoredRun, read_runs
from harness.reporting.aggregation import summarize
from harness.reporting.paired_comparison import Comparisons
from harness.reporting.summary import RecipeRow

RECIPES = "full,lprun,lora_qv,lora_ff,lora_qv+lprun,lora_ff+lprun"
SAME_MEMORY = 0.05


def differences(calm: Path, killed: Path) -> list[str]:
    """Compare the two folders; return the differences that are not allowed."""
    calm_runs, killed_runs = (
        {run.report.id: run for run in stored(folder)} for folder in (calm, killed)
    )
    problems = [
        f"only one of them has the run {name}"
        for name in sorted(calm_runs.keys() ^ killed_runs.keys())
    ]
    if problems and not calm_runs.keys() & killed_runs.keys():
        problems.append("were both written by the same code, on the same machine?")
    for name in sorted(calm_runs.keys() & killed_runs.keys()):
        problems += [
            f"{name}: {what}" for what in run_differences(calm_runs[name], killed_runs[name])
        ]
    calm_rows, killed_rows = rows_of(calm), rows_of(killed)
    floor = max(noise_floor(calm), noise_floor(killed))
    print(f"\n{'recipe':<16}{'undisturbed':>26}{'killed':>26}   relative speed, %, with interval")
    for recipe in calm_rows.keys() & killed_rows.keys():
        calm_row, killed_row = calm_rows[recipe], killed_rows[recipe]
        differ = not overlap(calm_row, killed_row, floor)
        print(f"{recipe:<16}{speed(calm_row):>26}{speed(killed_row):>26}{'   differ' * differ}")
        if differ:
            problems.append(f"{recipe}: relative speeds differ by more than noise ({floor:.3f}x)")
    hidden = [path.name for path in killed.iterdir() if path.name.startswith(".")]
    problems += [f"left behind: {name}" for name in sorted(hidden)]
    return problems


def stored(folder: Path) -> list[StoredRun]:
    """Return the runs of a folder; an unreadable one ends the program."""
    runs, unreadable = read_runs(folder)
    if unreadable:
        raise SystemExit(str(unreadable[0]))
    return runs


def run_differences(one: StoredRun, other: StoredRun) -> list[str]:
    """Return the differences of two runs in all that must be equal; speed is compared elsewhere."""
    fields = ("status", "parameters", "layers_kept", "quality", "not_computed", "decoding")
    differing = [f for f in fields if getattr(one.report, f) != getattr(other.report, f)]
    differing += [
        name
        for name in (PREDICTIONS, HISTORY)
        if (one.folder / name).read_bytes() != (other.folder / name).read_bytes()
    ]
    problems = [f"{what} differs" for what in differing]
    memory, other_memory = one.report.memory, other.report.memory
    if memory is None or other_memory is None:
        problems.append("has no memory")
    elif abs(memory.peak_bytes / other_memory.peak_bytes - 1) > SAME_MEMORY:
        problems.append(f"peak memory {memory.peak_bytes:,} and {other_memory.peak_bytes:,} bytes")
    return problems


def check_calm(folder: Path) -> None:
    """Fail if the undisturbed runs give nothing to compare."""
    runs = stored(folder)
    demand(len(runs) > 1, f"{len(runs)} runs in {folder}")
    failed = [run.report.id for run in runs if run.report.status != "ok"]
    demand(not failed, f"{len(failed)} runs failed, {failed[:1]}")
    texts = [(run.folder / PREDICTIONS).read_bytes() for run in runs]
    demand(all(texts) and len(set(texts)) > 1, "runs predict nothing, or the same")
    histories = [(run.folder / HISTORY).read_bytes().count(b"\n") for run in runs]
    demand(min(histories) > STEPS_BEFORE, f"a run has {min(histories)} steps, too few to be killed")


def rows_of(folder: Path) -> dict[str, RecipeRow]:
    """Return the rows of the table by recipe."""
    groups = summarize(stored(folder), Comparisons(None)).groups
    return {row.recipe: row for group in groups for row in group.rows}


def noise_floor(folder: Path) -> float:
    """Return the largest noise floor of a folder's runs, a ratio of at least 1."""
    speeds = [run.report.speed for run in stored(folder)]
    return max((s.noise_floor for s in speeds if s and s.noise_floor), default=1.0)


def overlap(row: RecipeRow, other: RecipeRow, floor: float) -> bool:
    """Return whether the intervals of two relative speeds, widened by the noise floor, overlap."""
    if row.speed is None or other.speed is None:
        return row.speed == other.speed
    low, high = row.speed.low or row.speed.value, row.speed.high or row.speed.value
    other_low, other_high = (
        other.speed.low or other.speed.value,
        other.speed.high or other.speed.value,
    )
    return low / floor <= other_high * floor and other_low / floor <= high * floor


def speed(row: RecipeRow) -> str:
    """Write a relative speed and its interval."""
    if row.speed is None:
        return "-"
    interval = (
        f" ({100 * row.speed.low:.0f}-{100 * row.speed.high:.0f})"
        if row.speed.low and row.speed.high
        else ""
    )
    return f"{100 * row.speed.value:.1f}{interval}"


def main() -> None:
    """Run both sweeps and compare them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--recipes", default=RECIPES, help=f"separated by commas (default: {RECIPES})"
    )
    parser.add_argument("--backbone", default="nano-t5")
    parser.add_argument("--task", default="radiology_demo")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as in harness sweep"
    )
    parser.add_argument(
        "--kill-in",
        default="train,evaluate",
        help="phases, separated by commas (default: train,evaluate)",
    )
    parser.add_argument(
        "--undisturbed", type=Path, help="earlier results of the same sweep, undisturbed"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results/resume"), help="folder of both sweeps"
    )
    options = parser.parse_args()

    arguments = ["--backbone", options.backbone, "--task", options.task]
    arguments += ["--compressor", options.recipes, "--seeds", str(options.seeds)]
    arguments += [word for setting in options.set for word in ("--set", setting)]
    calm, killed = options.undisturbed or options.out / "undisturbed", options.out / "killed"
    if killed.exists():
        raise SystemExit(f"{killed} exists already: remove it, or choose another --out.")
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.undisturbed:
        print("Undisturbed:", flush=True)
        finish(Sweep(arguments, calm, options.out / "undisturbed.log").run())
    check_calm(calm)
    sweep = Sweep(arguments, killed, options.out / "killed.log")
    print("Killed and restarted:", flush=True)
    for number, phase in enumerate(options.kill_in.split(",")):
        # Later kills wait for one finished run, so that they hit another run.
        if sweep.run(Killer(phase.strip(), killed, after=min(number, 1))) is not None:
            raise SystemExit(f"The sweep ended before its phase {phase!r} could be killed.")
    finish(sweep.run())

    problems = differences(calm, killed)
    resumptions = [(run.report.id, r.phase) for run in stored(killed) for r in run.report.resumed]
    print(f"\n{len(stored(killed))} runs; resumed:")
    for name, phase in resumptions:
        print(f"  {name} in {phase}")
    if len(resumptions) != len(options.kill_in.split(",")):
        problems.append("not every kill is in a report")
    for problem in problems:
        print(f"DIFFERS: {problem}")
    if problems:
        raise SystemExit(1)
    print("The table of the killed sweep is that of the undisturbed one.")


def finish(status: int | None) -> None:
    """End the program if a sweep failed."""
    if status:
        raise SystemExit(f"The sweep ended with exit status {status}.")


if __name__ == "__main__":
    main()
