"""The record of a diagnosis."""

from __future__ import annotations

from pydantic import Field

from harness.api.backbone import Role, Stack
from harness.records.record import Record
from harness.reporting.summary import Estimate


class LayerRemoval(Record):
    """Effect of removing one layer; the others stay as they are."""

    stack: Stack
    """``encoder`` or ``decoder``."""
    number: int
    """Number of the layer in its stack, from 1."""
    loss_increase: Estimate
    """Loss without the layer minus loss with it, in nats per target token."""
    influence: float
    """1 minus the cosine similarity of the layer's input and output, averaged over tokens (Men et
    al. 2024). 0 is a layer that only scales its input."""


class RoleGradient(Record):
    """Gradients of all modules of one role in one stack, before training."""

    stack: Stack
    """``encoder`` or ``decoder``."""
    role: Role
    """Role of the modules, such as ``ffn.in``."""
    weights: int
    """Number of their weights."""
    root_mean_square: float
    """Root of the mean square of the gradient of one weight."""
    relative: float
    """Norm of the gradient divided by the norm of the weights."""


class RoleChange(Record):
    """Change of all modules of one role in one stack by training."""

    stack: Stack
    """``encoder`` or ``decoder``."""
    role: Role
    """Role of the modules."""
    modules: int
    """Number of the modules."""
    relative: float
    """Norm of the change divided by the norm of the weights before."""
    energy_share: float
    """Share of the sum of squares of all changes that lies in these modules."""
    rank_shares: dict[int, float]
    """Rank -> share of a change's sum of squares in its best approximation of that rank, averaged
    over the modules."""
    rank_90: int
    """Least rank whose share is 0.9 or more."""
    effective_rank: float
    """Exponential of the entropy of the singular values (Roy and Vetterli 2007), averaged over the
    modules."""


class QualityBin(Record):
    """Test examples with similar values of a property."""

    low: float
    """Smallest value of the property."""
    high: float
    """Largest value of the property."""
    examples: int
    """Number of examples."""
    value: float
    """Score of the run."""
    against: float
    """Score of the run that it is compared with."""
    difference: Estimate
    """Score of the run minus score of the other, on the same examples."""
    p_value: float
    """p-value of no difference, adjusted for all bins of the diagnosis (Holm)."""


class QualityLoss(Record):
    """Scores of two runs by a property of the test examples."""

    metric: str
    """Name of the metric."""
    by: str
    """Property of an example that its bins are made of."""
    bins: list[QualityBin]
    """Bins of about equally many examples, by increasing value."""


class Proposal(Record):
    """A recipe worth trying, and the evidence for it."""

    recipe: str
    """The recipe."""
    evidence: list[str]
    """Sentences with the numbers that speak for each part."""


class Diagnosis(Record):
    """Layers to drop, changes by role, and examples on which a recipe lost quality."""

    backbone: str
    """Name of the backbone."""
    task: str
    """Name of the task."""
    run: str | None = None
    """Id of the run that was looked into; null if it was the model before training."""
    against: str | None = None
    """Id of the run that it was compared with; null if there was none."""
    examples: int
    """Examples of the eval split that losses and gradients are computed on."""
    tokens: int
    """Their target tokens."""
    loss: Estimate
    """Loss on these examples, in nats per target token."""
    layers: list[LayerRemoval]
    """The layers of the encoder, then those of the decoder."""
    gradients: list[RoleGradient]
    """Gradients by stack and role."""
    changes: list[RoleChange] | None = None
    """Changes by training; null without a run that trained the modules themselves."""
    lost: list[QualityLoss] | None = None
    """Quality by properties of the examples; null without a second run."""
    proposal: Proposal | None = None
    """A recipe; null if there is not enough evidence for one."""
    notes: list[str] = Field(default_factory=list)
    """Sentences on what the numbers do not show."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Name of a null field -> reason."""
