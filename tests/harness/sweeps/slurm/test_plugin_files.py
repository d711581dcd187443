"""Plugins of single files on Slurm: named in the command with their hashes, not in the JSON."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from harness import HarnessError, RunSpec
from harness.api.plugin_files import PluginFile
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
