"""Costs of candidates as ``harness plan`` computes them, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.api.plugins import Plugins
from harness.costs.batches import choose_batches
from harness.costs.data_choice import DataChoice
from harness.costs.memory_estimate import process_bytes
from harness.costs.plan import Plan, plan_recipes
from harness.errors import HarnessError
from harness.searching.needs import Needs
from harness.spec.run_spec import BASELINE, RunSpec
from harness.training.resolved_run import choose_device

TOLERANCE = 0.1
"""Share by which a computed cost may miss a limit before a candidate is rejected for it. Measured
speeds have exceeded the FLOP limit by 4 %, and memory estimates are within 10 %."""


@dataclass(frozen=True)
class Screened:
    """The computed costs of a recipe.

    Attributes:
        speed: FLOP limit of its speed relative to full fine-tuning.
        memory: its planned peak memory relative to full fine-tuning's; None if it is unknown.
        trainable: number of its trained parameters.
        excess: how far each limit is exceeded, as a share; above 0 rejects the recipe.
        rejected: the reason for which it is not trained; None if it is.
    """

    speed: float
    memory: float | None
    trainable: int
    excess: tuple[float, ...]
    rejected: str | None = None

    @property
    def memory_or_full(self) -> float:
        """The relative memory; that of full fine-tuning if it is unknown."""
        return 1.0 if self.memory is None else self.memory


class Screen:
    """Computes the costs of recipes on one backbone, each once.

    Args:
        spec: the settings of the search's runs.
        plugins: the plugins of this environment.
        needs: the limits of the user.

    Raises:
        HarnessError: an unknown name or setting, or there is no such device.
    """

    def __init__(self, spec: RunSpec, plugins: Plugins, needs: Needs) -> None:
        if choose_device(spec.device).type == "cpu":
            process_bytes()  # Before data are read, which would be counted too.
        self._spec = spec.model_copy(update={"weights": "random"})
        self._plugins, self._needs = plugins, needs
        self._backbone = plugins.backbone(spec.backbone)
        task = plugins.task(spec.task, spec.task_options)
        self._batches = choose_batches(self._spec, self._backbone, task, DataChoice.AUTO)
        self._known: dict[str, Screened] = {}
        self._full = self._plan(BASELINE)

    def costs(self, recipe: str) -> Screened:
        """Return the costs of a recipe, and the reason to reject it if there is one.

        Args:
            recipe: the recipe in canonical form.
        """
        if recipe not in self._known:
            self._known[recipe] = self._costs(recipe)
        return self._known[recipe]

    def _costs(self, recipe: str) -> Screened:
        try:
            plan = self._plan(recipe)
        except HarnessError as error:
            return Screened(0.0, None, 0, (1.0, 0.0), error.message)
        speed, memory = plan.flop_limit_relative_speed, self._relative_memory(plan)
        trainable = plan.parameters.trainable
        screened = Screened(speed, memory, trainable, self._needs.excess(speed, memory, TOLERANCE))
        return replace(screened, rejected=self._needs.why_too_expensive(speed, memory, TOLERANCE))

    def _plan(self, recipe: str) -> Plan:
        parsed = self._plugins.recipe(recipe)
        return plan_recipes(self._backbone, [parsed], spec=self._spec, batches=self._batches)[0]

    def _relative_memory(self, plan: Plan) -> float | None:
        if plan.memory is None or self._full.memory is None:
            return None
        return plan.memory.peak_bytes / self._full.memory.peak_bytes
