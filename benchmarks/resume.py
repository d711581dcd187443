"""Check that a sweep which is killed ends as one that is not: python benchmarks/resume.py --help.

Runs one sweep in peace, and the same into another folder where it is killed, the sweep and all of
its processes at once and without warning (SIGKILL), in the phases named by --kill-in; each time the
same command starts it again. Then the two folders are compared: the runs' ids, parameters, scores,
histories and predictions must be equal to the bit, peak memory within 5 %, and each recipe's
relative speed within the two intervals, widened by the noise floor. The hard part is that there is
something to lose and something to compare: it fails where a sweep cannot be killed with work half
done, and where runs left in peace failed, predicted nothing or the same.
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
    """Compare the two folders; return what differs and must not."""
    one, other = ({run.report.id: run for run in stored(folder)} for folder in (calm, killed))
    found = [f"only one of them has the run {name}" for name in sorted(one.keys() ^ other.keys())]
    if found and not one.keys() & other.keys():
        found.append("were both made by the same code, on the same machine?")
    for name in sorted(one.keys() & other.keys()):
        found += [f"{name}: {what}" for what in unlike_runs(one[name], other[name])]
    rows, their_rows = rows_of(calm), rows_of(killed)
    floor = max(noise_floor(calm), noise_floor(killed))
    print(f"\n{'recipe':<16}{'in peace':>26}{'killed':>26}   relative speed, %, with interval")
    for recipe in rows.keys() & their_rows.keys():
        row, their_row = rows[recipe], their_rows[recipe]
        apart = not meet(row, their_row, floor)
        print(f"{recipe:<16}{speed(row):>26}{speed(their_row):>26}{'   apart' * apart}")
        if apart:
            found.append(f"{recipe}: relative speeds are apart by more than noise ({floor:.3f}x)")
    left = [path.name for path in killed.iterdir() if path.name.startswith(".")]
    found += [f"left lying about: {name}" for name in sorted(left)]
    return found


def stored(folder: Path) -> list[StoredRun]:
    """Return the runs of a folder, all of which must be readable."""
    runs, unreadable = read_runs(folder)
    if unreadable:
        raise SystemExit(str(unreadable[0]))
    return runs


def unlike_runs(one: StoredRun, other: StoredRun) -> list[str]:
    """Return in what two runs differ that must be equal, but for speed."""
    fields = ("status", "parameters", "layers_kept", "quality", "not_computed", "decoding")
    unlike = [f for f in fields if getattr(one.report, f) != getattr(other.report, f)]
    unlike += [
        name
        for name in (PREDICTIONS, HISTORY)
        if (one.folder / name).read_bytes() != (other.folder / name).read_bytes()
    ]
    found = [f"{what} differs" for what in unlike]
    memory, other_memory = one.report.memory, other.report.memory
    if memory is None or other_memory is None:
        found.append("has no memory")
    elif abs(memory.peak_bytes / other_memory.peak_bytes - 1) > SAME_MEMORY:
        found.append(f"peak memory {memory.peak_bytes:,} and {other_memory.peak_bytes:,} bytes")
    return found


def check_calm(folder: Path) -> None:
    """Fail where the runs left in peace leave nothing to compare."""
    runs = stored(folder)
    demand(len(runs) > 1, f"{len(runs)} runs in {folder}")
    failed = [run.report.id for run in runs if run.report.status != "ok"]
    demand(not failed, f"{len(failed)} runs failed, {failed[:1]}")
    texts = [(run.folder / PREDICTIONS).read_bytes() for run in runs]
    demand(all(texts) and len(set(texts)) > 1, "runs predict nothing, or the same")
    histories = [(run.folder / HISTORY).read_bytes().count(b"\n") for run in runs]
    demand(min(histories) > STEPS_BEFORE, f"a run has {min(histories)} steps, too few to be killed")


def rows_of(folder: Path) -> dict[str, RecipeRow]:
    """Return recipe -> its row of the table."""
    groups = summarize(stored(folder), Comparisons(None)).groups
    return {row.recipe: row for group in groups for row in group.rows}


def noise_floor(folder: Path) -> float:
    """Return the largest noise floor of a folder's runs, a ratio of at least 1."""
    speeds = [run.report.speed for run in stored(folder)]
    return max((s.noise_floor for s in speeds if s and s.noise_floor), default=1.0)


def meet(row: RecipeRow, other: RecipeRow, floor: float) -> bool:
    """Return whether two relative speeds can be equal: their intervals and the noise floor meet."""
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
    parser.add_argument("--recipes", default=RECIPES, help=f"with commas (default: {RECIPES})")
    parser.add_argument("--backbone", default="nano-t5")
    parser.add_argument("--task", default="radiology_demo")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as in harness sweep"
    )
    parser.add_argument(
        "--kill-in", default="train,evaluate", help="phases, with commas (default: train,evaluate)"
    )
    parser.add_argument(
        "--undisturbed", type=Path, help="results of the same sweep in peace, made before"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results/resume"), help="where both sweeps go"
    )
    given = parser.parse_args()

    arguments = ["--backbone", given.backbone, "--task", given.task]
    arguments += ["--compressor", given.recipes, "--seeds", str(given.seeds)]
    arguments += [word for setting in given.set for word in ("--set", setting)]
    calm, killed = given.undisturbed or given.out / "undisturbed", given.out / "killed"
    if killed.exists():
        raise SystemExit(f"{killed} is there already: remove it, or name another --out.")
    given.out.mkdir(parents=True, exist_ok=True)
    if not given.undisturbed:
        print("In peace:", flush=True)
        finish(Sweep(arguments, calm, given.out / "undisturbed.log").run())
    check_calm(calm)
    sweep = Sweep(arguments, killed, given.out / "killed.log")
    print("Killed on the way:", flush=True)
    for number, phase in enumerate(given.kill_in.split(",")):
        # The later ones not in the run that was just taken up.
        if sweep.run(Killer(phase.strip(), killed, after=min(number, 1))) is not None:
            raise SystemExit(f"The sweep ended before its phase {phase!r} could be killed.")
    finish(sweep.run())

    found = differences(calm, killed)
    taken_up = [(run.report.id, r.phase) for run in stored(killed) for r in run.report.resumed]
    print(f"\n{len(stored(killed))} runs; taken up again:")
    for name, phase in taken_up:
        print(f"  {name} in {phase}")
    if len(taken_up) != len(given.kill_in.split(",")):
        found.append("not every kill is in a report")
    for what in found:
        print(f"DIFFERS: {what}")
    if found:
        raise SystemExit(1)
    print("The table of the killed sweep is that of the undisturbed one.")


def finish(status: int | None) -> None:
    """Go on only if a sweep ended well."""
    if status:
        raise SystemExit(f"The sweep ended with exit status {status}.")


if __name__ == "__main__":
    main()
