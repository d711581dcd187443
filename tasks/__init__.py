"""Built-in tasks, registered like any third party's."""

from harness import Register, hookimpl
from tasks.paths import is_data_path


@hookimpl
def register_tasks(register: Register) -> None:
    """Register the embedded task, and the user's own data."""
    register(
        "radiology_demo",
        "tasks.radiology_demo.task:RadiologyDemo",
        "embedded synthetic radiology reports: findings -> impression; needs no download",
    )
    register.family(
        "your own data",
        "tasks.files:FileTask",
        "a folder with train, eval and test files, or one file: JSONL, JSON, CSV or Parquet",
        accepts=is_data_path,
    )
