"""Study all methods, or cheap recipes that may be better than the paper's: ``make study``.

    PYTHONPATH=benchmarks python -m study --help

The same command resumes a study that was stopped. A cell counts as finished if its settings, its
data and the training code are equal, whatever the machine.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run what is missing, and write the page."""
    options = parse_arguments()
    # Before torch is imported. A cell's last digits depend on the number of threads.
    os.environ["OMP_NUM_THREADS"] = "1"
    from harness.api.plugins import installed
    from harness.errors import HarnessError
    from study import cheaper_page, page
    from study.costs import measure
    from study.runner import Runner
    from study.size import Size
    from study.store import Store, training_code
    from study.studies import METHODS, STUDIES

    plugins = installed()
    chosen = {f.name: getattr(options, f.name) for f in fields(Size)}
    size = replace(Size(), **{name: value for name, value in chosen.items() if value is not None})
    study = STUDIES[options.study]
    folder = options.out or ROOT / "results" / ("study" if study is METHODS else "study-cheaper")
    place = folder if study is METHODS else folder / Path(size.task).name
    store = Store(place, training_code())
    every = study.recipes(plugins)
    bare = [str(plugins.recipe(text)) for text in options.only or ()] or every
    cells = study.planned(bare, size.seeds, plugins)

    def on_progress(line: str) -> None:
        print(line, flush=True)

    try:
        if options.step == "runs":
            Runner(plugins, store, study, size, options.executor, bare, on_progress).run()
        elif options.step == "costs":
            named = list(dict.fromkeys(recipe for recipe, _ in cells))
            measure(store.folder, named, size.task, on_progress)
        if study is METHODS:
            page.write(store, options.docs, study.planned(every, size.seeds, plugins))
        else:
            cheaper_page.write(folder, options.docs)
    except HarnessError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. The same command resumes from here.", file=sys.stderr)
        return 130
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "step",
        nargs="?",
        choices=["runs", "costs", "page"],
        default="runs",
        help="runs: learning rates and cells; costs: speed and memory, on a machine with nothing "
        "else to do; page: only write the page, which the others do too",
    )
    parser.add_argument(
        "--study",
        choices=["methods", "cheaper"],
        default="methods",
        help="methods: every compressor with and without pruning; cheaper: recipes that may beat "
        "lora_ff+lprun (default: methods)",
    )
    parser.add_argument("--task", help="task of the study (default: radiology_demo)")
    parser.add_argument("--out", type=Path, help="default: results/study or results/study-cheaper")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument(
        "--executor", default="local:jobs=2", help="as in harness sweep (default: local:jobs=2)"
    )
    parser.add_argument("--only", nargs="+", metavar="RECIPE", help="recipes without pruning")
    for name in ("seeds", "steps", "rate_steps", "test_examples"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
