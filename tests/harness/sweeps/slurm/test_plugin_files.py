"""Plugins of single files on Slurm: named in the command with their hashes, not in the JSON."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness import HarnessError, RunSpec
from harness.api.plugin_files import PluginFile
from harness.records.run_folder import read_report
from harness.sweeps.executor import Job
from harness.sweeps.slurm.commands import submit
from harness.sweeps.slurm.job_array import JobArray
from harness.sweeps.slurm.node import _plugin_files

SBATCH = '#!/bin/sh\nfor last; do :; done\n/bin/cp "$last" {script}\necho Submitted batch job 7\n'


def test_a_node_reads_the_file_that_the_command_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    file, script = tmp_path / "my_method.py", tmp_path / "script"
    file.write_text("x = 1\n")
    for name, text in (("sbatch", SBATCH.format(script=script)), ("srun", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    read = PluginFile.read(file)
    job = Job(spec=RunSpec(), id="one", results=tmp_path, plugin_files=[read])
    array = JobArray.create(tmp_path / "results", [job], None)
    assert submit(array, {}, [read]) == "7"
    assert array.job(0).plugin_files == []
    (command,) = [line for line in script.read_text().splitlines() if "slurm.node" in line]
    words = shlex.split(command)
    monkeypatch.setattr("sys.argv", words[words.index("harness.sweeps.slurm.node") :])
    assert _plugin_files() == [read]
    file.write_text("x = 2\n")
    with pytest.raises(HarnessError, match="has changed since it was given"):
        _plugin_files()


PLUGIN = """
from harness import Compressor, Options, Stage, hookimpl


class Norms(Compressor):
    stage = Stage.ADAPTER
    Options = Options

    def apply(self, model, backbone, context):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("norm" in name)
        return model


@hookimpl
def register_compressors(register):
    register("my_norms", Norms, "train the norms")
"""


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_a_sweep_on_slurm_trains_the_method_of_a_file(short_run: list[str], tmp_path: Path) -> None:
    file, results = tmp_path / "my_norms.py", tmp_path / "results"
    file.write_text(PLUGIN)
    words = ["--compressor", "my_norms", "--plugin", str(file), "--executor", "slurm:poll=0.5"]
    command = ["sweep", *short_run[1:], *words, "--out", str(results), "--yes"]
    swept = subprocess.run(
        [sys.executable, "-m", "harness", *command], capture_output=True, text=True, check=False
    )
    assert swept.returncode == 0, swept.stderr
    (folder,) = results.glob("[!.]*")
    report = read_report(folder)
    assert report.status == "ok"
    assert report.plugin_files == {file.name: PluginFile.read(file).sha256}
