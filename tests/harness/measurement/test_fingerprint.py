"""What measurements depend on, read from this machine."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import pytest
import torch

import harness
from harness.measurement.fingerprint import fingerprint, git_state, package_versions


def test_it_names_what_computes() -> None:
    record = fingerprint(torch.device("cpu"), torch.bfloat16, "sdpa")
    assert (record.device, record.driver) == ("cpu", None)
    assert (record.dtype, record.attention) == ("bfloat16", "sdpa")
    assert record.threads == torch.get_num_threads()
    assert record.matmul_precision == torch.get_float32_matmul_precision()
    assert record.cpu
    assert record.versions["python"] == platform.python_version()
    assert record.versions["harness"] == harness.__version__
    assert record.versions.items() > package_versions().items()


@pytest.mark.parametrize("state", ["on", "off"])
def test_on_cuda_the_attention_says_whether_cudnn_may_compute_it(
    monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(torch.backends.cuda, "cudnn_sdp_enabled", lambda: state == "on")
    record = fingerprint(torch.device("cuda"), torch.bfloat16, "sdpa")
    assert record.attention == f"sdpa; cuDNN {state}"


def test_on_cuda_the_versions_of_cuda_cudnn_and_driver_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 580.65.06\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91300)
    record = fingerprint(torch.device("cuda"), torch.bfloat16, "sdpa")
    assert record.driver == "580.65.06"
    assert (record.versions["cuda"], record.versions["cudnn"]) == ("13.0", "91300")
    # On the same machine's CPU they make no difference.
    on_cpu = fingerprint(torch.device("cpu"), torch.bfloat16, "sdpa")
    assert on_cpu.versions.keys() == record.versions.keys() - {"cuda", "cudnn"}


def test_versions_are_those_installed() -> None:
    names = {"torch", "transformers", "peft"}
    assert package_versions() == {name: importlib.metadata.version(name) for name in names}


def test_threads_and_precision_are_read_anew() -> None:
    before = torch.get_num_threads()
    one = fingerprint(torch.device("cpu"), torch.float32, "sdpa")
    torch.set_num_threads(before + 1)
    try:
        assert fingerprint(torch.device("cpu"), torch.float32, "sdpa") != one
    finally:
        torch.set_num_threads(before)


def test_variables_that_change_how_libraries_compute_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def found() -> dict[str, str]:
        return fingerprint(torch.device("cpu"), torch.float32, "sdpa").environment

    before = found()
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    monkeypatch.setenv("PATIENT", "not the fingerprint's affair")
    changed = {"NVIDIA_TF32_OVERRIDE": "1", "ATEN_CPU_CAPABILITY": "avx2"}
    assert found() == {**before, **changed}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in which the harness lies, not yet committed."""
    module = tmp_path / "harness" / "__init__.py"
    module.parent.mkdir()
    module.write_text("")
    monkeypatch.setattr(harness, "__file__", str(module))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_git_state_is_the_harness_own(checkout: Path) -> None:
    assert git_state() is None
    git(checkout, "init", "--quiet")
    assert git_state() is None
    git(checkout, "commit", "--quiet", "--allow-empty", "-m", "another project")
    # An installed package within a checkout of something else.
    assert git_state() is None
    git(checkout, "add", "harness")
    git(checkout, "commit", "--quiet", "-m", "harness")
    commit = git(checkout, "rev-parse", "HEAD")
    assert git_state() == commit
    (checkout / "untracked").touch()
    assert git_state() == commit
    (checkout / "harness" / "__init__.py").write_text("changed = True")
    one = git_state()
    (checkout / "harness" / "__init__.py").write_text("changed = 2")
    two = git_state()
    # Two unlike changes of one commit are two states.
    for state in (one, two):
        assert state
        assert state.startswith(f"{commit}+dirty.")
    assert one != two


def test_without_git_there_is_no_state(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert git_state() is None
