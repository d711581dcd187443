"""Targets of a method: modules of a backbone, chosen by role."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from pydantic import field_validator

from harness import HarnessError, Options, Role

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
    a hyphen, as in qv-ffn.out."""

    @field_validator("targets")
    @classmethod
    def _readable(cls, text: str) -> str:
        roles_of(text)
        return text


def roles_of(text: str) -> tuple[Role, ...]:
    """Return the roles that a text names, in the order of ``ROLES``.

    Raises:
        ValueError: a part is neither a group nor a role.
    """
    chosen: set[Role] = set()
    for part in text.split("-"):
        if part not in GROUPS and part not in ROLES:
            raise ValueError(
                f"{part!r} is no role; write {', '.join(GROUPS)}, or roles joined by a hyphen: "
                f"{', '.join(ROLES)}"
            )
        chosen.update(GROUPS[part] if part in GROUPS else (role for role in ROLES if role == part))
    return tuple(role for role in ROLES if role in chosen)


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
