"""Check of an export: a process of stock libraries computes the same as the model of the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from harness.errors import HarnessError, OutOfMemoryError
from harness.export.manifest import ExportCheck
from harness.export.reference import Reference

PROGRAM = Path(__file__).with_name("stock_process.py")
"""Program of the process that loads the export; importing it would block the harness."""

ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Variables of the processes of stock libraries."""

LOGITS_LIMIT = 5e-5
"""Largest difference of logits in float32, relative to the largest logit."""
TOKEN_LIMIT = 3.0
"""Largest difference of the log-probability of one target token in other types, in nats."""
MEAN_LIMIT = 0.2
"""Largest mean difference of the log-probabilities of target tokens in other types, in nats."""
LEAST_EQUAL = 0.25
"""Least share of equal predictions in other types."""


class StockResult(NamedTuple):
    """Result of the process of stock libraries.

    Attributes:
        logits: example -> logits of the target tokens.
        other_logits: the same of the first examples, by a second way to load the model, if any.
        predictions: predictions with the settings of the exported folder.
        libraries: versions of the libraries.
    """

    logits: list[Tensor]
    other_logits: list[Tensor]
    predictions: list[str]
    libraries: dict[str, str]


def check_torch(
    reference: Reference, folder: Path, base: Path | str | None, dtype: str
) -> ExportCheck:
    """Compare an exported model of transformers with the model of the run.

    Args:
        reference: what the model of the run computes.
        folder: the exported folder.
        base: of an adapter: the folder or the hub id of its base.
        dtype: data type of the stored weights.

    Raises:
        HarnessError: the model cannot be loaded, or differs by more than is allowed.
    """
    result = run_stock_process(reference, folder, base)
    if dtype == "float32":
        return _compare_logits(reference, result)
    found = target_log_probabilities(result.logits, reference.targets)
    return compare_log_probabilities(reference, found, result.predictions, result.libraries)


def _compare_logits(reference: Reference, result: StockResult) -> ExportCheck:
    difference = max(
        float((mine - other).abs().max())
        for found in (result.logits, result.other_logits)
        for mine, other in zip(reference.logits, found, strict=False)
    )
    scale = max(float(logits.abs().max()) for logits in reference.logits)
    equal = count_equal(reference.predictions, result.predictions)
    check = ExportCheck(
        examples=len(reference.rows),
        equal_predictions=equal,
        least_equal=len(reference.rows),
        reference="the model of the run in float32, its adapters not merged",
        equal_to_stored=count_equal(reference.stored, result.predictions),
        stored_must_equal=reference.must_equal_stored,
        largest_difference=difference,
        limit=LOGITS_LIMIT * scale,
        compared="logits",
        libraries=result.libraries,
    )
    require_passed(check)
    return check


def compare_log_probabilities(
    reference: Reference,
    found: Sequence[Tensor],
    predictions: Sequence[str],
    libraries: dict[str, str],
    *,
    greedy: Sequence[str] | None = None,
    token_limit: float = TOKEN_LIMIT,
    mean_limit: float = MEAN_LIMIT,
    least_equal: float = LEAST_EQUAL,
) -> ExportCheck:
    """Compare the log-probabilities of target tokens, and predictions.

    Args:
        reference: what the model of the run computes.
        found: example -> log-probabilities of its target tokens by the exported model.
        predictions: predictions of the exported model.
        libraries: versions of the libraries that loaded it.
        greedy: its greedy predictions, which are then compared with the reference's in place of
            ``predictions``, for an engine whose beam search is another one.
        token_limit: largest difference of a token, in nats.
        mean_limit: largest mean difference, in nats.
        least_equal: least share of equal predictions.

    Raises:
        HarnessError: they differ by more than is allowed.
    """
    expected = torch.cat(target_log_probabilities(reference.logits, reference.targets))
    differences = (expected - torch.cat(list(found))).abs()
    compared = (
        count_equal(reference.predictions, predictions)
        if greedy is None
        else count_equal(reference.greedy, greedy)
    )
    search = "" if greedy is None else "; both predict by greedy search"
    check = ExportCheck(
        examples=len(reference.rows),
        equal_predictions=compared,
        least_equal=round(least_equal * len(reference.rows)),
        reference=f"the model of the run in float32, its adapters not merged{search}",
        equal_to_stored=count_equal(reference.stored, predictions),
        largest_difference=float(differences.max()),
        limit=token_limit,
        mean_difference=float(differences.mean()),
        mean_limit=mean_limit,
        compared="log-probabilities",
        libraries=libraries,
    )
    require_passed(check)
    return check


def target_log_probabilities(
    logits: Sequence[Tensor], targets: Sequence[Sequence[int]]
) -> list[Tensor]:
    """Return, of each example, the log-probabilities of its target tokens."""
    return [
        values.float().log_softmax(-1).gather(1, torch.tensor(target)[:, None])[:, 0]
        for values, target in zip(logits, targets, strict=True)
    ]


def count_equal(expected: Sequence[str], found: Sequence[str]) -> int:
    """Return the number of equal texts at equal places."""
    return sum(a == b for a, b in zip(expected, found, strict=True))


def require_passed(check: ExportCheck) -> None:
    """Raise an error that names each number by which a check falls short.

    Raises:
        HarnessError: the check did not pass.
    """
    short = []
    if not check.largest_difference <= check.limit:  # Also if it is not a number.
        short.append(
            f"the {check.compared} differ by up to {check.largest_difference:.3g}, and "
            f"{check.limit:.3g} is allowed"
        )
    mean, most = check.mean_difference, check.mean_limit
    if mean is not None and most is not None and not mean <= most:
        short.append(f"they differ by {mean:.3g} in the mean, and {most:.3g} is allowed")
    if check.equal_predictions < check.least_equal:
        short.append(
            f"{check.equal_predictions} of {check.examples} predictions are equal, and "
            f"{check.least_equal} must be"
        )
    if check.stored_must_equal and check.equal_to_stored < check.examples:
        short.append(
            f"{check.equal_to_stored} of {check.examples} predictions are those that the run stored"
        )
    if short:
        raise HarnessError(
            f"The exported model is not the model of the run, so that nothing was written: "
            f"{'; '.join(short)}.",
            "If the versions of torch or transformers have changed since the run, repeat the run.",
        )


def run_stock_process(reference: Reference, folder: Path, base: Path | str | None) -> StockResult:
    """Load an exported model in a fresh process without the harness, and return what it computes.

    Raises:
        HarnessError: the process failed, or it made other tokens.
    """
    run = reference.run
    with tempfile.TemporaryDirectory(prefix="export-check-") as place:
        work = Path(place)
        request = {
            "folder": str(folder),
            "base": None if base is None else str(base),
            "prefix": run.prefix,
            "max_source_length": run.max_source_length,
            "max_target_length": reference.longest_target,
            "batch_size": run.spec.test.batch_size,
            "sources": reference.source_texts,
            "targets": reference.target_texts,
            "threads": torch.get_num_threads(),
            "logits": str(work / "logits.safetensors"),
            "result": str(work / "result.json"),
        }
        (work / "request.json").write_text(json.dumps(request), "utf-8")
        start_stock_process(PROGRAM, str(work / "request.json"))
        result: dict[str, Any] = json.loads((work / "result.json").read_text("utf-8"))
        tensors = load_file(work / "logits.safetensors")
    tokens = (result["sources"], result["targets"])
    if tokens != ([*map(list, reference.sources)], [*map(list, reference.targets)]):
        raise HarnessError(
            "The exported tokenizer makes other tokens than the one of the run, so that nothing "
            "was written.",
            "Restore the tokenizer that the run started from.",
        )
    logits = [tensors[str(number)] for number in range(len(reference.rows))]
    others = sorted(name for name in tensors if name.startswith("second."))
    return StockResult(
        logits, [tensors[name] for name in others], result["predictions"], result["libraries"]
    )


def start_stock_process(program: Path, *arguments: str) -> None:
    """Run a program that imports stock libraries alone, until it ends.

    Args:
        program: the program.
        arguments: its arguments.

    Raises:
        HarnessError: it failed.
    """
    process = _execute(program, arguments)
    if process.returncode == -9:
        raise OutOfMemoryError("The process that checks the export was killed.")
    if process.returncode:
        lines = process.stderr.strip().splitlines()
        raise HarnessError(
            "Stock libraries cannot load the exported model, so that nothing was written: "
            f"{lines[-1] if lines else f'exit status {process.returncode}'}",
            "Check that the recipe's compressors merge into the backbone's own modules.",
        )


def _execute(program: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Execute a program in a fresh process."""
    return subprocess.run(
        # -P: neither the program's folder nor the present one is searched for modules.
        [sys.executable, "-P", str(program), *arguments],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
