"""Checks of a backbone: its roles and layers, and the checks of compressors on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import nn

from harness import clock
from harness.api.backbone import STACKS, Backbone, Role
from harness.api.plugins import installed
from harness.errors import HarnessError
from harness.testing.applying import APPLYING
from harness.testing.handing_over import HANDING_OVER
from harness.testing.result import CheckFailedError, CheckReport, DoesNotApplyError
from harness.testing.runner import Check, OnResult, run_checks
from harness.testing.subject import Subject, working_folder
from harness.testing.training import TRAINING

_ON_RECIPES = [c for c in (*APPLYING, *TRAINING, *HANDING_OVER) if "seed" not in c.name]


def check_backbone(
    backbone: str | Backbone,
    *,
    recipes: Sequence[str] | None = None,
    on_result: OnResult = lambda _: None,
) -> CheckReport:
    """Check that a backbone keeps the promises of its interface, with random weights on the CPU.

    It takes seconds for a small model, and as long as a few training steps for a large one. Give a
    backbone whose configuration is small.

    Args:
        backbone: a registered name, a hub id or a folder, or a backbone.
        recipes: the recipes to train on it; by default full fine-tuning, pruned layers, and LoRA.
        on_result: is called with each result.

    Raises:
        HarnessError: there is no such backbone.
    """
    began = clock.seconds()
    built = installed().backbone(backbone) if isinstance(backbone, str) else backbone
    report = CheckReport(kind="backbone", name=built.name)
    report.results += run_checks(OWN, built, type(built), on_result=on_result)
    for text in _recipes(built) if recipes is None else recipes:
        with working_folder() as folder:
            name = text.partition(":")[0].partition("+")[0]
            subject = Subject(built, name, text, installed().compressors, folder)
            report.results += run_checks(_ON_RECIPES, subject, type(built), text, on_result)
    report.seconds = clock.seconds() - began
    return report


def _recipes(backbone: Backbone) -> list[str]:
    """Return recipes that train all weights, drop a first and a last layer, and add adapters."""
    model = backbone.skeleton()
    depths = {stack: len(backbone.layers(model, stack)) for stack in STACKS}
    pruned = [] if min(depths.values()) < 2 else [_pruning(depths["encoder"], depths["decoder"])]
    return ["full", *pruned, "lora:targets=all"]


def _pruning(encoder: int, decoder: int) -> str:
    return f"lprun:encoder=1-{encoder - 1},decoder=2-{decoder}"


def shapes(backbone: Backbone) -> None:
    """Compare the skeleton with the model, parameter by parameter."""
    skeleton, model = backbone.skeleton(), backbone.load("random")
    if not all(p.is_meta for p in skeleton.parameters()):
        raise CheckFailedError("a skeleton has values; build it on the meta device", "skeleton")
    one = {name: tuple(p.shape) for name, p in skeleton.named_parameters()}
    other = {name: tuple(p.shape) for name, p in model.named_parameters()}
    if one != other:
        raise CheckFailedError("the skeleton has other parameters than the model", "skeleton")
    if {p.dtype for p in model.parameters()} != {torch.float32}:
        raise CheckFailedError("the model is not in float32", "load")
    if not model.training:
        raise CheckFailedError("the model is not in training mode", "load")


def roles(backbone: Backbone) -> None:
    """Check that each layer has one module of each role, and that no module has two."""
    model = backbone.skeleton()
    depths = {stack: len(backbone.layers(model, stack)) for stack in STACKS}
    owner: dict[int, str] = {}
    for role in get_args(Role):
        found = backbone.modules(model, role)
        expected = depths["decoder"] if role.startswith("cross") else sum(depths.values())
        if len(found) < expected or len(found) % expected:
            raise CheckFailedError(
                f"{len(found)} modules have the role {role}, and there are {expected} layers "
                "that should have one"
            )
        for name, module in found.items():
            if model.get_submodule(name) is not module:
                raise CheckFailedError(f"{name!r} is not the name of its module")
            if not isinstance(module, nn.Linear):
                raise CheckFailedError(f"{name!r} is no linear layer")
            if owner.setdefault(id(module), role) != role:
                raise CheckFailedError(f"{name!r} has the roles {owner[id(module)]} and {role}")


def identity(backbone: Backbone) -> None:
    """Check its name and its version, which are part of a run's identity."""
    again: Any = type(backbone)(backbone.reference)
    if not backbone.name or not backbone.version():
        raise CheckFailedError("its name or its version is empty", "version")
    if again.version() != backbone.version():
        raise CheckFailedError("two objects of one reference have two versions", "version")


def tokens(backbone: Backbone) -> None:
    """Check the tokenizer against the configuration."""
    config = backbone.config()
    try:
        tokenizer = backbone.tokenizer()
    except HarnessError as error:
        raise DoesNotApplyError(error.message) from error
    ids = tokenizer("A short text.").input_ids
    if ids[-1] != config.eos_token_id:
        raise CheckFailedError("the tokenizer does not end a text with the end token", "tokenizer")
    if tokenizer.pad_token_id != config.pad_token_id:
        raise CheckFailedError(
            f"the tokenizer pads with {tokenizer.pad_token_id} and the model with "
            f"{config.pad_token_id}",
            "tokenizer",
        )
    if max(ids) >= config.vocab_size:
        raise CheckFailedError("the tokenizer has more tokens than the model", "tokenizer")


OWN: list[Check[Backbone]] = [
    Check("the skeleton has the shapes of the model", "skeleton", shapes),
    Check("every layer has a module of each role", "modules", roles),
    Check("its name and version identify it", "version", identity),
    Check("the tokenizer fits the model", "tokenizer", tokens),
]
