"""Targets of a method: modules of a backbone, chosen by role."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from pydantic import field_validator

from harness import STACKS, HarnessError, Options, Role, Stack

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from harness import Backbone

ROLES: tuple[Role, ...] = get_args(Role)
GROUPS: dict[str, tuple[Role, ...]] = {
    "ffn": ("ffn.in", "ffn.out"),
    "attn": tuple(role for role in ROLES if "attn" in role),
    "qv": ("self_attn.q", "self_attn.v", "cross_attn.q", "cross_attn.v"),
    "kv": ("self_attn.k", "self_attn.v", "cross_attn.k", "cross_attn.v"),
    "all": ROLES,
}
"""Short names of several roles."""


class TargetOptions(Options):
    """Options of a method that is applied to chosen linear layers."""

    targets: str = "ffn"
    """Layers to adapt: ffn, attn, qv, kv, all, or a role such as self_attn.q; several are joined by
    a hyphen, as in qv-ffn.out. decoder.ffn means those of the decoder alone."""

    @field_validator("targets")
    @classmethod
    def _readable(cls, text: str) -> str:
        _places(text)
        return text


def _places(text: str) -> list[tuple[Stack | None, Role]]:
    """Return the roles that a text names, in the order of ``ROLES``, each with its stack.

    The stack is None for both.

    Raises:
        ValueError: a part is neither a group nor a role.
    """
    chosen: set[tuple[Stack | None, Role]] = set()
    for part in text.split("-"):
        stack = next((stack for stack in STACKS if part.startswith(f"{stack}.")), None)
        name = part.removeprefix(f"{stack}.")
        if name not in GROUPS and name not in ROLES:
            raise ValueError(
                f"{part!r} is no role; write {', '.join(GROUPS)}, or roles joined by a hyphen: "
                f"{', '.join(ROLES)}; encoder. or decoder. in front means one stack"
            )
        roles = GROUPS[name] if name in GROUPS else [role for role in ROLES if role == name]
        chosen.update((stack, role) for role in roles)
    return sorted(chosen, key=lambda place: (ROLES.index(place[1]), place[0] or ""))


def targets_of(
    model: PreTrainedModel, backbone: Backbone, text: str, owner: str
) -> dict[str, nn.Module]:
    """Return qualified name -> module for the layers that ``targets`` names.

    Args:
        model: the model.
        backbone: finds modules by role.
        text: the text of the option.
        owner: name of the compressor, for messages.

    Raises:
        HarnessError: the backbone has no such layer.
    """
    within = {
        stack: {id(m) for layer in backbone.layers(model, stack) for m in layer.modules()}
        for stack in STACKS
    }
    found = {
        name: module
        for stack, role in _places(text)
        for name, module in backbone.modules(model, role).items()
        if stack is None or id(module) in within[stack]
    }
    if not found:
        raise HarnessError(
            f"{owner}: {backbone.name} has no layers {text}.",
            f"Choose other layers: {owner}:targets=all",
        )
    return found


def modules_of(
    model: PreTrainedModel, backbone: Backbone, roles: tuple[Role, ...], owner: str
) -> dict[str, nn.Module]:
    """Return qualified name -> module for all modules of some roles.

    Args:
        model: the model.
        backbone: finds modules by role.
        roles: the roles.
        owner: name of the compressor, for messages.

    Raises:
        HarnessError: the backbone has no module of these roles.
    """
    found = {n: m for role in roles for n, m in backbone.modules(model, role).items()}
    if not found:
        raise HarnessError(
            f"{owner}: {backbone.name} has no modules of the roles {', '.join(roles)}.",
            f"Choose other layers: {owner}:targets=all",
        )
    return found


def norms_of(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Return qualified name -> module for all norms of a model."""
    return {
        name: module
        for name, module in model.named_modules()
        if type(module).__name__.endswith(("LayerNorm", "RMSNorm"))
    }
