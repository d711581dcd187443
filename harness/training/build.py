"""Builds a trainer: loads the backbone, applies the recipe, and adds an engine and an optimizer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from harness.model.composition import LayerNumbers, compose, count_parameters, layers
from harness.model.recorder import CudaRecorder
from harness.records.report import LayersKept, Parameters
from harness.training.compiling import compile_layers, compile_obstacle
from harness.training.compressor_events import CompressorEvents
from harness.training.engines.activation_checkpointing import checkpoint_activations
from harness.training.engines.packed import PackedEngine, choose_engine, packing_obstacle
from harness.training.graph_obstacle import graph_obstacle
from harness.training.learning_rate import peak_learning_rate
from harness.training.objective import LossSum, make_objective
from harness.training.optimizer import make_optimizer
from harness.training.packing import recipe_obstacle, resolve_packing
from harness.training.parallel.sharding import GRAPH_OBSTACLE, prepare_shards, shard
from harness.training.parameter_groups import own_groups
from harness.training.processes import SINGLE_PROCESS, Processes
from harness.training.recording import record_steps
from harness.training.resolved_run import ResolvedRun
from harness.training.run_context import load_original, run_context
from harness.training.trainer import Trainer


def load_trainer(
    run: ResolvedRun, *, drawn_on_device: bool = False, processes: Processes = SINGLE_PROCESS
) -> Trainer:
    """Load the backbone, apply the recipe, and build a trainer of the result.

    Seeds all global generators, so that equal runs start from equal models.

    Args:
        run: the settings, the backbone and the recipe.
        drawn_on_device: see ``load_original``.
        processes: see ``build_trainer``.
    """
    backbone = run.backbone
    model = load_original(run, drawn_on_device=drawn_on_device)
    original = count_parameters(model).total
    numbers = LayerNumbers(layers(model, backbone))
    context = run_context(run, drawn_on_device=drawn_on_device)
    model = compose(model, backbone, run.recipe, context)
    kept = numbers.kept(layers(model, backbone))
    trainer = build_trainer(
        model,
        run,
        LayersKept(encoder=kept["encoder"], decoder=kept["decoder"]),
        parameters_of(model, original),
        context.teacher() if run.recipe.taught_in_steps else None,
        processes,
    )
    trainer.layer_numbers = numbers
    return trainer


def parameters_of(model: PreTrainedModel, original: int) -> Parameters:
    """Count the parameters of a composed model.

    Args:
        model: the model after ``compose``.
        original: number of parameters of the published backbone.
    """
    count = count_parameters(model)
    return Parameters(
        original=original,
        total=count.total,
        trainable=count.trainable,
        trainable_pct_of_original=100 * count.trainable / original,
        trainable_pct_of_total=100 * count.trainable / count.total,
    )


def build_trainer(
    model: PreTrainedModel,
    run: ResolvedRun,
    layers_kept: LayersKept,
    parameters: Parameters,
    teacher: PreTrainedModel | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> Trainer:
    """Move a composed model to its device, and add an engine and an optimizer.

    Args:
        model: the composed model.
        run: the settings, the backbone that the model came from, and the recipe that was applied.
        layers_kept: see ``Trainer``.
        parameters: see ``Trainer``.
        teacher: the teacher, frozen, if a compressor of the recipe needs one.
        processes: the processes that divide the model if the settings say ``fsdp``; all of them
            must call this. A single process has all of it.

    Raises:
        HarnessError: packing or the optimizer is not available.
    """
    settings = run.spec.train
    not_packed = recipe_obstacle(run.recipe) or packing_obstacle(model, run.backbone)
    sharded = processes.size > 1 and settings.parallel == "fsdp"
    whole = prepare_shards(model, run, processes) if sharded else None
    # A model that will be divided stays on the CPU: its layers go to the device one by one.
    model = model if sharded else model.to(run.device)
    device = next((whole or model).parameters()).device  # The index of the GPU included.
    engine = choose_engine(
        model,
        run.backbone,
        device=device,
        dtype=run.dtype,
        pad_token_id=model.config.pad_token_id,
        packing=resolve_packing(settings.engine, run.recipe),
        label_smoothing=settings.label_smoothing,
        sharded=sharded,
    )
    if settings.engine == "compiled" and isinstance(engine, PackedEngine):
        compile_layers(engine, model, compile_obstacle(run, sharded))
    objective = make_objective(run, engine, layers_kept, teacher)
    if run.checkpointing:
        checkpoint_activations(model, run.backbone, objective.dropout_context)
    shards = shard(LossSum(model, objective), whole, run, processes) if whole else None
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    obstacle = GRAPH_OBSTACLE if sharded else graph_obstacle(run, model, engine, objective)
    trainer = Trainer(
        model=model,
        device=device,
        engine=engine,
        objective=objective,
        optimizer=optimizer_of(run, model, trained),
        trained=trained,
        clip_norm=settings.clip_norm,
        dtype=run.dtype,
        learning_rate=peak_learning_rate(settings, run.recipe),
        layers_kept=layers_kept,
        parameters=parameters,
        events=CompressorEvents(run.recipe.compressors),
        run=run,
        graph_obstacle=obstacle,
        packing_obstacle=not_packed if settings.engine in ("auto", "compiled") else None,
        shards=shards,
    )
    if obstacle is None:
        record_steps(trainer, CudaRecorder())
    return trainer


def optimizer_of(
    run: ResolvedRun, model: PreTrainedModel, trained: Mapping[str, nn.Parameter]
) -> Optimizer:
    """Return a new optimizer of the trained parameters, with the groups that compressors name.

    Args:
        run: the settings and the recipe.
        model: the composed model.
        trained: qualified name -> trained parameter.
    """
    settings = run.spec.train
    own = own_groups(run.recipe.compressors, model, trained)
    return make_optimizer(model, trained, settings, peak_learning_rate(settings, run.recipe), own)
