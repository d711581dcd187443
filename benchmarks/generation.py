"""Check that killed generation loses nothing, and that its memory is flat.

    python benchmarks/generation.py --help

The program generates the predictions of 100,000 lines undisturbed, and samples the memory of that
process. It gives the same command another output and kills it there five times by SIGKILL, each
time after another sixth of the lines. Then the outputs and the files of bad records must be equal
to the byte.

The hard part is that a kill meets work in progress: some of a window's batches are decoded, some
are not, and nothing of the window is in the output. The program waits for such a window before it
kills, and fails if the command ends first. It also fails if the lines have much the same length, if
there are too few different predictions for a doubled or swapped line to show, and if no record is
bad. Memory must hold still over the last 90 % of the lines, whose text is larger than what it may
grow by.

The model is a small T5 with random weights: the check is of the stream, and not of the model. Speed
is compared by generation_speed.py, which needs a machine without other work.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from demands import demand, demand_spread

from harness.measurement.fingerprint import fingerprint
from harness.records.atomic import write_text

FILE = "generation.json"
FLAT = 16 * 2**20
"""Largest growth of peak resident memory over the last 90 % of the lines, in bytes."""
FLAT_FROM = 50_000
"""Fewest lines whose first tenth holds enough windows for memory to have settled."""
_WORDS = ["lung", "liver", "spleen", "kidney", "nodule", "cyst", "scar", "stone", "clear"]


def write_model(folder: Path) -> None:
    """Write a T5 of 2+2 layers with random weights and nano-t5's tokenizer."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    from harness.backbones.nano import NanoT5

    tokenizer = NanoT5("nano-t5").tokenizer()
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_heads=4,
        num_layers=2,
        decoder_start_token_id=0,
        initializer_factor=3.0,  # With 1 most sources get the same prediction.
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_input(path: Path, lines: int) -> list[int]:
    """Write records of different lengths, one in a thousand of them bad; return the lengths."""
    rng = random.Random(0)
    lengths = []
    with path.open("w", encoding="utf-8") as file:
        for number in range(lines):
            words = [rng.choice(_WORDS) for _ in range(2 + int(rng.expovariate(1 / 8)))]
            row = {"id": number, "source": " ".join(words), "more": "carried through " * 40}
            text = json.dumps(row)
            file.write((text[:-9] if number % 1000 == 500 else text) + "\n")
            lengths.append(len(words))
    return lengths


class Command:
    """The command that is run undisturbed and killed.

    Args:
        model: folder of the model.
        source: the input.
        out: the output.
        window: records of a window.
    """

    def __init__(self, model: Path, source: Path, out: Path, window: int) -> None:
        options = ["--beams", "2", "--max-new-tokens", "4", "--window", str(window), "--json"]
        options += ["--device", "cpu", "--precision", "float32", "--batch-tokens", "4096"]
        self.words = [sys.executable, "-m", "harness", "generate", str(model), str(source)]
        self.words += ["--out", str(out), *options]
        self.out = out
        self.work = out.with_name(f".{out.name}.partial")

    def run(self, on_poll: Callable[[int], bool] = lambda pid: False) -> dict[str, Any] | None:
        """Run the command.

        Args:
            on_poll: is called with the process id again and again; True kills the process.

        Returns:
            The counts that the command prints; None if it was killed.
        """
        with subprocess.Popen(self.words, stdout=subprocess.PIPE, text=True) as process:
            while process.poll() is None:
                if on_poll(process.pid):
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    return None
                time.sleep(0.005)
            assert process.stdout
            printed = process.stdout.read()
        demand(process.returncode == 1, f"exit status {process.returncode} instead of 1")
        counts: dict[str, Any] = json.loads(printed)
        return counts

    def records_done(self) -> int:
        """Return the records whose windows are written."""
        try:
            return int(json.loads((self.work / "progress.json").read_text())["records"])
        except (FileNotFoundError, ValueError):
            return 0

    def batches_begun(self) -> int:
        """Return the batches of the window in progress that are decoded."""
        try:
            return sum(p.read_bytes().count(b"\n") for p in self.work.glob("window-*.jsonl"))
        except FileNotFoundError:  # The window ended meanwhile.
            return 0


class MemoryCurve:
    """Resident memory of a process against the records that are done, four times a second.

    Args:
        command: the command that the process runs.
    """

    def __init__(self, command: Command) -> None:
        self.samples: list[tuple[int, int]] = []
        self._command = command
        self._next = 0.0

    def __call__(self, pid: int) -> bool:
        """Take a sample if it is time."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 0.25
            records = self._command.records_done()
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except FileNotFoundError:
                return False
            kib = next(
                (ln.split()[1] for ln in status.splitlines() if ln.startswith("VmRSS")), None
            )
            if records and kib:
                self.samples.append((records, int(kib) * 1024))
        return False

    def growth(self, lines: int) -> int:
        """Return the growth of memory after the first tenth of the lines, in bytes.

        It is that of a line through all samples: memory rises and falls with each batch, and a
        peak is seen by chance.
        """
        late = [(records, size) for records, size in self.samples if records > lines / 10]
        demand(len(late) >= 5, f"{len(late)} samples of memory after the first tenth of the lines")
        slope = statistics.linear_regression(*zip(*late, strict=True)).slope
        return round(slope * 0.9 * lines)


def kill_at(command: Command, records: int) -> int:
    """Run a command until so many records are done, and a window is half decoded; kill it there.

    Returns:
        Batches of the window in progress that were decoded.
    """
    begun = 0

    def should_kill(pid: int) -> bool:
        nonlocal begun
        if command.records_done() < records:
            return False
        begun = command.batches_begun()
        return begun > 0

    demand(command.run(should_kill) is None, f"it ended before {records:,} records were done")
    demand(not command.out.exists(), "a killed command left an output")
    return begun


def check(folder: Path, lines: int, kills: int, window: int) -> dict[str, Any]:
    """Run both commands and compare them; return what is to be recorded."""
    model, source = folder / "model", folder / "in.jsonl"
    write_model(model)
    lengths = write_input(source, lines)
    demand_spread(lengths, "sources")
    demand(source.stat().st_size * 0.9 > 2 * FLAT or lines < FLAT_FROM, "the input is small")
    demand(lines > 2 * window * (kills + 1), f"{lines:,} lines are too few for {kills} kills")
    calm = Command(model, source, folder / "calm.jsonl", window)
    curve = MemoryCurve(calm)
    counts = calm.run(curve)
    assert counts is not None
    check_output(calm.out, lines)
    killed = Command(model, source, folder / "killed.jsonl", window)
    losses = []
    for number in range(1, kills + 1):
        losses.append(kill_at(killed, number * lines // (kills + 1)))
        print(
            f"killed after {killed.records_done():,} records and {losses[-1]} batches", flush=True
        )
    resumed = killed.run()
    assert resumed is not None
    for path in (killed.out, killed.out.with_name(f"{killed.out.name}.errors.jsonl")):
        other = path.with_name(path.name.replace("killed", "calm"))
        if path.read_bytes() != other.read_bytes():
            raise SystemExit(f"DIFFERS: {path.name} from {other.name}")
    growth = curve.growth(lines)
    if growth > FLAT and lines >= FLAT_FROM:
        raise SystemExit(
            f"Memory grows by {growth / 2**20:.1f} MiB over the last 90 % of the lines."
        )
    step = max(1, len(curve.samples) // 40)
    return {
        "lines": lines,
        "window": window,
        "kills": kills,
        "batches_in_progress_at_kills": losses,
        "equal": True,
        "bad_records": counts["errors"],
        "input_bytes": source.stat().st_size,
        "memory": {
            "growth_bytes": growth,
            "peak_bytes": max(size for _, size in curve.samples),
            "limit_bytes": FLAT,
            "samples": [{"records": r, "bytes": b} for r, b in curve.samples[::step]],
        },
    }


def check_output(path: Path, lines: int) -> None:
    """Fail if an output could hide a lost, doubled or swapped line."""
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    bad = lines - len(rows)
    demand(bad == sum(number % 1000 == 500 for number in range(lines)) > 0, f"{bad} bad records")
    different = len({row["prediction"] for row in rows})
    demand(different > 100, f"{different} different predictions")
    ids = [row["id"] for row in rows]
    demand(ids == sorted(set(ids)), "the undisturbed output is out of order")


def merge_record(path: Path, key: str, values: dict[str, Any], quick: bool) -> None:
    """Write one part of the record, and keep the other parts of the file."""
    import torch

    record = json.loads(path.read_text()) if path.exists() else {}
    values["fingerprint"] = fingerprint(torch.device("cpu"), torch.float32, "beams").model_dump()
    record[key] = {"quick": quick, **values}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=1) + "\n")
    print(f"Written: {path}")


def main(words: Sequence[str] | None = None) -> None:
    """Run the check and write its record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="a smoke test with 8,000 lines")
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--window", type=int, default=2048)
    options = parser.parse_args(words)
    if options.quick:
        options.lines, options.kills, options.window = 8_000, 2, 512
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with TemporaryDirectory() as folder:
        values = check(Path(folder), options.lines, options.kills, options.window)
    growth = values["memory"]["growth_bytes"] / 2**20
    print(f"{options.kills} kills, equal outputs; memory grows by {growth:.1f} MiB.")
    merge_record(options.out / FILE, "resumption", values, options.quick)


if __name__ == "__main__":
    main()
