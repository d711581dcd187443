"""Run all steps on the GPU of this machine: ``make gpu``."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from gpu.card import CardError, ask_for_card
from gpu.runner import Runner
from gpu.step_list import MINUTES, STEPS

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run the steps in order; return 0 if all of them are done."""
    options = parse_arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        card = ask_for_card(options.device)
    except CardError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    slug = f"{card.slug}-tiny" if options.tiny else card.slug
    steps = [step for step in STEPS if not options.steps or step.name in options.steps]
    runner = Runner(
        ROOT, options.results / slug, card, steps, options.tiny, options.minutes * 60, options.out
    )
    print(f"{card.name}: {len(steps)} steps, results in {runner.folder}", flush=True)
    try:
        return runner.run()
    except KeyboardInterrupt:
        print("Stopped. The same command resumes from here.", file=sys.stderr)
        return 130


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(prog="make gpu", description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "gpu")
    parser.add_argument("--out", type=Path, help="folder for an archive of all results")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: its numbers mean nothing")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="time limit of all steps together"
    )
    parser.add_argument("--steps", nargs="+", choices=names, metavar="STEP", help=", ".join(names))
    return parser.parse_args()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
