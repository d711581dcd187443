"""The fingerprint: all of this machine that measurements depend on."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import pytest
import torch

import harness
from harness.measurement.fingerprint import fingerprint, git_state, package_versions


def test_it_names_device_precision_and_attention() -> None:
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
    # On the CPU of the same machine these versions make no difference.
    on_cpu = fingerprint(torch.device("cpu"), torch.bfloat16, "sdpa")
    assert on_cpu.versions.keys() == record.versions.keys() - {"cuda", "cudnn"}


def test_versions_are_those_installed() -> None:
    names = {"torch", "transformers", "peft"}
    assert package_versions() == {name: importlib.metadata.version(name) for name in names}


def test_threads_are_read_at_every_call() -> None:
    threads = torch.get_num_threads()
    earlier = fingerprint(torch.device("cpu"), torch.float32, "sdpa")
    torch.set_num_threads(threads + 1)
    try:
        assert fingerprint(torch.device("cpu"), torch.float32, "sdpa") != earlier
    finally:
        torch.set_num_threads(threads)


def test_environment_variables_that_change_computation_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def environment() -> dict[str, str]:
        return fingerprint(torch.device("cpu"), torch.float32, "sdpa").environment

    before = environment()
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    monkeypatch.setenv("PATIENT", "not the fingerprint's affair")
    changed = {"NVIDIA_TF32_OVERRIDE": "1", "ATEN_CPU_CAPABILITY": "avx2"}
    assert environment() == {**before, **changed}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds the harness, not yet under git."""
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
    # A package installed inside the checkout of another project.
    assert git_state() is None
    git(checkout, "add", "harness")
    git(checkout, "commit", "--quiet", "-m", "harness")
    commit = git(checkout, "rev-parse", "HEAD")
    assert git_state() == commit
    (checkout / "untracked").touch()
    assert git_state() == commit
    (checkout / "harness" / "__init__.py").write_text("changed = True")
    first = git_state()
    (checkout / "harness" / "__init__.py").write_text("changed = 2")
    second = git_state()
    # Two different changes of one commit are two states.
    for state in (first, second):
        assert state
        assert state.startswith(f"{commit}+dirty.")
    assert first != second


def test_without_git_there_is_no_state(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert git_state() is None
