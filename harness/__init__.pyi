"""The public API by the module that each name comes from; loaded when it is first used."""

from .api.arrays import FloatArray
from .api.backbone import STACKS, Backbone, Role, Stack, Weights
from .api.compressor import Compressor, Stage
from .api.context import Context
from .api.cost import Cost
from .api.events import DataRead, Evaluated, PhaseStarted, StepDone
from .api.file_plugins import add_plugin
from .api.hookspecs import hookimpl
from .api.metric import Metric, Score
from .api.options import Options, validate
from .api.outputs import Outputs
from .api.parameter_group import ParameterGroup
from .api.plugins import find_metrics
from .api.registry import Register
from .api.task import LengthProfile, Preparation, Prepared, Splits, Task
from .api.teacher import Teacher
from .api.version import API_VERSION
from .backbones.pretrained import Pretrained
from .costs.entry import plan, profile
from .data.data_folder import DATA_VARIABLE, data_folder, find_file
from .data.dialect import Dialect
from .data.entry import TaskStatistics, prepare, stats
from .data.files import read_table
from .data.folders import SPLIT_NAMES, pick_splits, read_folder
from .data.hashing import file_hash, folder_hash
from .data.hub_dataset import load_from_hub
from .data.kinds import DATA_SUFFIXES, stem
from .data.leakage import count_leakage, hash_text, hash_texts
from .data.pairs import usable_pairs
from .data.references import HUB_PREFIX, is_data_path, is_hub_reference
from .data.splits import split_rows
from .data.table import Table, holds_lists, references_column, text_column
from .data.table_task import TableOptions, TableTask
from .data.turns import Joining, exchanges, turn_column
from .diagnosis.entry import diagnose
from .errors import HarnessError, is_out_of_memory
from .evaluation.entry import score
from .export.entry import export_run
from .export.push import Push, push
from .export.storage import storage
from .generation.entry import generate, load
from .generation.generated import Generated
from .generation.loading import LoadedModel
from .records.report import Report
from .records.run_folder import StoredRun
from .records.tensor_file import write_tensors
from .reporting.collection import Reports
from .reporting.entry import load_report, load_reports, recommend
from .running.entry import run
from .searching.entry import search
from .searching.record import SearchResult
from .spec.run_spec import RunSpec
from .sweeps.entry import SweepResult, sweep
from .sweeps.executor import Executor, Job, ProcessExecutor, WorkerExit
from .training.engines.padded import Batch

__version__: str

__all__ = [
    "API_VERSION",
    "DATA_SUFFIXES",
    "DATA_VARIABLE",
    "HUB_PREFIX",
    "SPLIT_NAMES",
    "STACKS",
    "Backbone",
    "Batch",
    "Compressor",
    "Context",
    "Cost",
    "DataRead",
    "Dialect",
    "Evaluated",
    "Executor",
    "FloatArray",
    "Generated",
    "HarnessError",
    "Job",
    "Joining",
    "LengthProfile",
    "LoadedModel",
    "Metric",
    "Options",
    "Outputs",
    "ParameterGroup",
    "PhaseStarted",
    "Preparation",
    "Prepared",
    "Pretrained",
    "ProcessExecutor",
    "Push",
    "Register",
    "Report",
    "Reports",
    "Role",
    "RunSpec",
    "Score",
    "SearchResult",
    "Splits",
    "Stack",
    "Stage",
    "StepDone",
    "StoredRun",
    "SweepResult",
    "Table",
    "TableOptions",
    "TableTask",
    "Task",
    "TaskStatistics",
    "Teacher",
    "Weights",
    "WorkerExit",
    "add_plugin",
    "count_leakage",
    "data_folder",
    "diagnose",
    "exchanges",
    "export_run",
    "file_hash",
    "find_file",
    "find_metrics",
    "folder_hash",
    "generate",
    "hash_text",
    "hash_texts",
    "holds_lists",
    "hookimpl",
    "is_data_path",
    "is_hub_reference",
    "is_out_of_memory",
    "load",
    "load_from_hub",
    "load_report",
    "load_reports",
    "pick_splits",
    "plan",
    "prepare",
    "profile",
    "push",
    "read_folder",
    "read_table",
    "recommend",
    "references_column",
    "run",
    "score",
    "search",
    "split_rows",
    "stats",
    "stem",
    "storage",
    "sweep",
    "text_column",
    "turn_column",
    "usable_pairs",
    "validate",
    "write_tensors",
]
