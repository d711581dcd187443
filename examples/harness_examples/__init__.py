"""One plugin of each kind; here their names are registered, and nothing heavy is imported.

A class is named by its path and is imported when it is first used. The observer has no name: its
module is an entry point of its own.
"""

from harness import Register, hookimpl


@hookimpl
def register_compressors(register: Register) -> None:
    """Register compressors."""
    register("biases", "harness_examples.compressor:BitFit", "train biases and norms only")
    register(
        "influence", "harness_examples.influence:Influence", "drop the layers that change least"
    )
    register(
        "distillation", "harness_examples.distillation:Distillation", "imitate the original model"
    )
    register("sparsity", "harness_examples.sparsity:Sparsity", "prune weights while training")
    register("thinning", "harness_examples.thinning:Thinning", "drop layers while training")


@hookimpl
def register_tasks(register: Register) -> None:
    """Register the task of commit messages."""
    register(
        "commit_messages",
        "harness_examples.task:CommitMessages",
        "diff -> first line of the commit's message; from any git repository",
    )


@hookimpl
def register_backbones(register: Register) -> None:
    """Register a family of references rather than one name: ``pegasus:FOLDER`` and the like."""
    register.family(
        "pegasus:org/name",
        "harness_examples.backbone:Pegasus",
        "a Pegasus model of the hub or a folder, such as pegasus:google/pegasus-xsum",
        accepts=lambda reference: reference.startswith("pegasus:"),
    )


@hookimpl
def register_metrics(register: Register) -> None:
    """Register the word error rate."""
    register("wer", "harness_examples.metric:WordErrorRate", "word error rate; less is better")


@hookimpl
def register_executors(register: Register) -> None:
    """Register srun."""
    register("srun", "harness_examples.executor:Srun", "a Slurm cluster, run by run")
