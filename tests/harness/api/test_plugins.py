"""Third-party packages, built and installed by pip, together with the built-in ones."""

import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import HarnessError
from harness.api.plugins import GROUP, Plugins, discover, installed
from harness.api.recipe import parse

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def sites(install_package: Callable[[Path], Path]) -> dict[str, Path]:
    """Package -> the folder into which pip installed it."""
    packages = ("examples", "tests/plugins/broken", "tests/plugins/collider")
    return {Path(name).name: install_package(ROOT / name) for name in packages}


@pytest.fixture
def find(
    sites: dict[str, Path], monkeypatch: pytest.MonkeyPatch, forget_plugins: None
) -> Callable[..., Plugins]:
    """Discover the built-in plugins and the named packages, in this process."""

    def find(*names: str) -> Plugins:
        for name in names:
            monkeypatch.syspath_prepend(sites[name])
        importlib.invalidate_caches()
        return discover(importlib.metadata.entry_points(group=GROUP))

    return find


def call_harness(*arguments: str, sites: list[Path]) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([*map(str, sites), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def listed(output: str) -> dict[str, Any]:
    return {entry["name"]: entry for entry in json.loads(output)["compressors"]["names"]}


@pytest.mark.slow
def test_the_command_line_lists_an_installed_plugin_and_plans_with_it(
    sites: dict[str, Path],
) -> None:
    result = call_harness("list", "compressors", "--json", sites=[sites["examples"]])
    assert result.stderr == ""
    compressors = listed(result.stdout)
    assert compressors["biases"]["origin"] == {"package": "harness-examples", "version": "1.0.0"}
    assert "lora_ff" in compressors

    plan = ["plan", "--backbone", "t5-small", "--compressor", "biases+lprun", "--json"]
    result = call_harness(*plan, sites=[sites["examples"]])
    printed = json.loads(result.stdout)
    assert printed["layers_kept"] == {"encoder": [1, 2, 3, 5, 6], "decoder": [1, 2, 3, 5, 6]}
    # One norm per sub-layer (2 in the encoder, 3 in the decoder) and one after each stack.
    assert printed["parameters"]["trainable"] == (5 * 2 + 5 * 3 + 2) * 512


def test_a_plugins_options_and_conflicts_are_checked_like_any_others(
    find: Callable[..., Plugins],
) -> None:
    compressors = find("examples").compressors
    assert str(parse("lprun+biases:norms=false", compressors)) == "biases:norms=false+lprun"
    with pytest.raises(HarnessError, match="has no option 'norm'") as raised:
        parse("biases:norm=1", compressors)
    assert "Did you mean 'norms'" in str(raised.value)
    with pytest.raises(HarnessError, match="'biases' cannot be combined with 'lora_ff'"):
        parse("biases+lora_ff", compressors)


def test_a_plugins_compressor_trains_what_it_says(
    find: Callable[..., Plugins], backbone: Any, make_model: Callable[[], Any]
) -> None:
    import torch

    from harness.model.composition import compose

    compressors = find("examples").compressors
    if backbone.name == "tiny-t5":
        with pytest.raises(HarnessError, match="no biases to train"):
            compose(make_model(), backbone, parse("biases:norms=false", compressors))
    model = compose(make_model(), backbone, parse("biases", compressors))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ids = torch.arange(12).reshape(2, 6) + 3
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert all("norm" in name or name.endswith(".bias") for name in changed)


def test_a_broken_plugin_is_reported_and_others_work(sites: dict[str, Path]) -> None:
    both = [sites["examples"], sites["broken"]]
    result = call_harness("list", "compressors", "--json", sites=both)
    assert result.returncode == 0
    assert {"biases", "full", "lora_ff", "lora_qv", "lprun"} <= listed(result.stdout).keys()
    assert "Skipped plugin 'broken' of harness-broken 0.3.0" in result.stderr
    assert "a_library_that_is_not_installed" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_name_registered_twice_is_an_error_only_when_used(
    find: Callable[..., Plugins],
) -> None:
    plugins = find("collider")
    assert any("'lora_ff' is claimed by" in warning for warning in plugins.warnings)
    with pytest.raises(HarnessError, match=r"claimed by seq2seq-harness .* and harness-c"):
        parse("lora_ff", plugins.compressors)
    assert str(parse("lora_other+lprun", plugins.compressors)) == "lora_other+lprun"


def test_a_hook_that_fails_keeps_none_of_its_names(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "half_a_plugin.py").write_text(
        "from harness import hookimpl\n"
        "@hookimpl\n"
        "def register_compressors(register):\n"
        "    register('half', 'nowhere:Half', 'registered before the failure')\n"
        "    raise RuntimeError('out of luck')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    point = importlib.metadata.EntryPoint("half", "half_a_plugin", GROUP)
    plugins = discover([point])
    assert list(plugins.compressors) == []
    assert [broken.reason for broken in plugins.broken] == ["RuntimeError: out of luck"]


def test_the_built_in_plugins_are_plugins() -> None:
    assert {origin.package for origin in installed().origins} == {"seq2seq-harness"}
    assert installed().warnings == []


def test_without_its_own_plugins_the_harness_says_how_to_install_itself(monkeypatch: Any) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [])
    with pytest.raises(HarnessError, match="pip install -e"):
        installed.__wrapped__()
