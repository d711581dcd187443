"""Specs: TOML round trips, --set, presets, digests, and mistakes that are explained."""

import contextlib
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness import HarnessError, Options
from harness.spec.presets import PRESETS
from harness.spec.run_spec import TUNED, VARIED, RunSpec, parse_settings, read_toml, resolve

BOOLEANS = st.booleans()
COUNTS = st.integers(1, 2**40)
RATES = st.floats(1e-12, 1e3)
LEAVES = st.one_of(st.text(), st.integers(), st.booleans(), st.floats(allow_nan=False))
TRAIN = {
    "batch_size": COUNTS,
    "epochs": RATES,
    "max_steps": COUNTS,
    "learning_rate": RATES,
    "warmup_steps": st.integers(0, 10**6),
    "beta1": st.floats(0, 1, exclude_max=True),
    "precision": st.sampled_from(["auto", "float32", "bfloat16"]),
    "eval_examples": COUNTS,
}
DECODING = {
    "beams": COUNTS,
    "no_repeat_ngram": st.integers(0, 9),
    "length_penalty": st.floats(-2, 10),
    "repetition_penalty": st.floats(0.01, 100),
    "early_stopping": st.sampled_from([False, True, "never"]),
}
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "backbone": st.text(),
        "recipe": st.text(),
        "task": st.text(),
        "task_options": st.dictionaries(st.text(), LEAVES, max_size=3),
        "weights": st.sampled_from(["pretrained", "random"]),
        "seed": st.integers(0, 2**60),
        "preset": st.sampled_from(sorted(PRESETS)),
        "train": st.fixed_dictionaries({}, optional=TRAIN),
        "test": st.fixed_dictionaries({}, optional={**DECODING, "examples": COUNTS}),
        "probe": st.fixed_dictionaries({}, optional={"baseline": st.text(), "steps": COUNTS}),
    },
)
PATHS = st.sampled_from(["seed", "task", "preset", "train", "train.batch_size", "a.b", "a", ""])


@given(VALUES)
def test_a_resolved_spec_reads_back_from_its_toml(values: dict[str, Any]) -> None:
    spec = resolve(values, "paper")
    again = resolve(tomllib.loads(spec.to_toml()), "quick")
    assert again == spec
    assert again.digest() == spec.digest()


@given(st.lists(st.tuples(st.text("abc", min_size=1, max_size=2), LEAVES), max_size=4))
def test_settings_are_read_as_toml(pairs: list[tuple[str, Any]]) -> None:
    import tomli_w

    texts = [tomli_w.dumps({"x": value}).removeprefix("x = ") for _, value in pairs]
    parsed = parse_settings(
        [f"outer.{name}={text}" for (name, _), text in zip(pairs, texts, strict=True)]
    )
    assert parsed == ({"outer": dict(pairs)} if pairs else {})


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("train.batch_size=4", {"train": {"batch_size": 4}}),
        (" train.batch_size = 4", {"train": {"batch_size": 4}}),
        ("train.learning_rate=3e-4", {"train": {"learning_rate": 3e-4}}),
        ("task=data/a=b.jsonl", {"task": "data/a=b.jsonl"}),
        ("task_options.prefix='summarize: '", {"task_options": {"prefix": "summarize: "}}),
        ("task_options.prefix=summarize: ", {"task_options": {"prefix": "summarize:"}}),
        ("train={batch_size=4, epochs=2}", {"train": {"batch_size": 4, "epochs": 2}}),
        ("task=", {"task": ""}),
        ("task_options.since=2020-01-31", {"task_options": {"since": date(2020, 1, 31)}}),
    ],
)
def test_what_is_not_toml_is_text(setting: str, values: dict[str, Any]) -> None:
    assert parse_settings([setting]) == values


def test_the_last_of_equal_settings_counts() -> None:
    settings = ["train.batch_size=4", "seed=1", "train.epochs=2", "train.batch_size=8"]
    assert parse_settings(settings) == {"train": {"batch_size": 8, "epochs": 2}, "seed": 1}


@given(st.lists(st.one_of(st.text(), st.builds("{}={}".format, PATHS, st.text()))))
@example(["train=3", "train.batch_size=4"])
@example(["preset=[1]"])
def test_any_settings_make_a_spec_or_an_error_that_explains(settings: list[str]) -> None:
    with contextlib.suppress(HarnessError):
        assert isinstance(resolve(parse_settings(settings), "quick"), RunSpec)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["train.batch_sizee=4"], "no option 'train.batch_sizee'.\nDid you mean 'batch_size'?"),
        (["trian.batch_size=4"], "A run has no option 'trian'.\nDid you mean 'train'"),
        (["train.batch_size"], "--set 'train.batch_size' cannot be read.\nWrite --set train."),
        (["=4"], "--set '=4' cannot be read"),
        (["train=3", "train.epochs=1"], "'train' is a group of settings and was given a value"),
        (["train=3"], "option train=3 is not valid"),
        (["train.batch_size=0"], "train.batch_size=0 is not valid: Input should be greater than"),
        (["train.batch_size=few"], "train.batch_size='few' is not valid"),
        (["train.epochs=inf"], "train.epochs=inf is not valid"),
        (["train.learning_rate=nan"], "train.learning_rate=nan is not valid"),
        (["train.precision=float16"], "Input should be 'auto', 'float32' or 'bfloat16'"),
        (["test.beams=0"], "test.beams=0 is not valid"),
        (
            ["test.min_new_tokens=200", "test.max_new_tokens=150"],
            "option test.min_new_tokens=200 is not valid: is more than max_new_tokens=150",
        ),
        (["greedy.min_new_tokens=60"], "60 is not valid: is more than max_new_tokens=50"),
        (["test.length_penalty=99"], "length_penalty=99 is not valid: Input should be less than"),
        (["test.repetition_penalty=0"], "repetition_penalty=0 is not valid: Input should be gre"),
        (["test.early_stopping=maybe"], "'maybe' is not valid: Input should be False, True or 'ne"),
        (
            ["test.decoder=ctranslate2", "test.early_stopping=never"],
            "test.decoder='ctranslate2' is not valid: ctranslate2 does not support",
        ),
        (["probe.rounds=1"], "probe.rounds=1 is not valid"),
        (["seed=-1"], "seed=-1 is not valid"),
        (["task=7"], "task=7 is not valid: Input should be a valid string"),
        (["task_options=x"], "task_options='x' is not valid"),
        (["preset=fast"], "Unknown preset 'fast'.\nKnown: paper, quick."),
    ],
)
def test_mistakes_are_explained(settings: list[str], complaint: str) -> None:
    with pytest.raises(HarnessError) as raised:
        resolve(parse_settings(settings), "paper")
    assert complaint in str(raised.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("True", True), ("false", False), ("never", "never"), ("'never'", "never")],
)
def test_early_stopping_is_read_as_people_write_it(text: str, value: bool | str) -> None:
    spec = resolve(parse_settings([f"test.early_stopping={text}"]), "paper")
    assert spec.test.early_stopping == value
    assert resolve(tomllib.loads(spec.to_toml()), "paper") == spec


def test_one_setting_of_the_greedy_search_leaves_the_others_alone() -> None:
    plain = resolve({}, "paper").greedy
    changed = resolve(parse_settings(["greedy.batch_size=4"]), "paper").greedy
    assert (plain.beams, plain.max_new_tokens, plain.no_repeat_ngram) == (1, 50, 0)
    assert changed == plain.model_copy(update={"batch_size": 4})


@pytest.mark.parametrize("preset", PRESETS)
def test_a_spec_file_from_before_a_setting_existed_means_its_default(preset: str) -> None:
    spec = resolve({}, preset)
    later = {"length_penalty", "min_new_tokens", "repetition_penalty", "early_stopping"}
    old = spec.model_dump(exclude={"test": later, "greedy": later}, exclude_none=True)
    assert resolve(old, preset) == spec


@pytest.mark.parametrize("preset", PRESETS)
def test_values_lie_over_the_preset_which_lies_over_the_defaults(preset: str) -> None:
    plain = resolve({}, preset)
    assert plain == resolve({"preset": preset}, "paper")
    given = {"train": {"batch_size": 3}, "test": {"beams": 2}}
    changed = resolve({"preset": preset, **given}, "paper")
    assert (changed.train.batch_size, changed.test.beams) == (3, 2)
    assert changed.train.model_copy(update={"batch_size": plain.train.batch_size}) == plain.train
    assert changed.test.model_copy(update={"beams": plain.test.beams}) == plain.test


def test_the_presets_differ_and_paper_is_the_defaults() -> None:
    assert resolve({}, "paper") == RunSpec(preset="paper")
    assert resolve({}, "quick").train.batch_size == PRESETS["quick"]["train"]["batch_size"]
    assert resolve({}, "quick").train.batch_size != RunSpec().train.batch_size


def variants(options: Options) -> Iterator[tuple[str, Any]]:
    """Yield, for every field at any depth, its path and a copy that differs in it alone."""
    for name, info in type(options).model_fields.items():
        value = getattr(options, name)
        if isinstance(value, Options):
            for path, inner in variants(value):
                yield f"{name}.{path}", options.model_copy(update={name: inner})
            continue
        other: Any
        if get_origin(info.annotation) is Literal:
            other = next(choice for choice in get_args(info.annotation) if choice != value)
        elif isinstance(value, bool):
            other = not value
        elif isinstance(value, str):
            other = f"{value}x"
        elif name == "metrics":
            other = ["rouge"]
        elif name == "best_metric":
            other = "rouge2"
        else:
            other = {None: 7, int: 9999, float: 0.123, dict: {"key": 1}}[
                None if value is None else type(value)
            ]
        yield name, options.model_copy(update={name: other})


def test_the_digest_depends_on_every_field() -> None:
    spec = resolve({}, "quick")
    digests = {path: copy.digest() for path, copy in variants(spec)}
    assert {"seed", "train.beta2", "greedy.beams", "test.examples", "probe.rounds"} <= set(digests)
    assert len({spec.digest(), *digests.values()}) == len(digests) + 1


def test_runs_that_differ_in_what_is_varied_or_measured_share_their_settings() -> None:
    spec = RunSpec()
    for path, copy in variants(spec):
        same = path.partition(".")[0] in VARIED or path == f"train.{TUNED}"
        assert (copy.settings_digest() == spec.settings_digest()) == same, path


def test_the_digest_depends_on_what_else_is_named_but_not_on_the_order_of_keys() -> None:
    spec = RunSpec(task_options={"a": 1, "b": 2})
    assert spec.digest() == RunSpec(task_options={"b": 2, "a": 1}).digest()
    assert len({spec.digest(), spec.digest("x"), spec.digest("x", "y"), spec.digest("xy")}) == 4


def test_a_spec_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text('task = "übung"\n[train]\nbatch_size = 4\n', "utf-8")
    assert read_toml(path) == {"task": "übung", "train": {"batch_size": 4}}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "There is no spec file"),
        (b"task = ", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[train]\na = 1\n[train]\n", "cannot be read"),
    ],
)
def test_a_bad_spec_file_is_named(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    path = tmp_path / "spec.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(HarnessError) as raised:
        read_toml(path)
    assert complaint in raised.value.message
    assert str(path) in raised.value.message


def test_a_folder_is_no_spec_file(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="cannot be read"):
        read_toml(tmp_path)


@pytest.mark.parametrize(
    ("old", "engine"),
    [
        ({"packing": "auto", "cuda_graphs": "auto"}, "auto"),
        ({"packing": "on"}, "auto"),
        ({"packing": "off", "cuda_graphs": "auto"}, "padded"),
        ({"cuda_graphs": "on"}, "graph"),
        ({"packing": "on", "cuda_graphs": "off"}, "packed"),
        ({"packing": "auto", "engine": "packed"}, "packed"),
        ({"cuda_graphs": "on", "engine": "graph"}, "graph"),
    ],
)
def test_settings_that_the_engine_replaced_are_read(old: dict[str, Any], engine: str) -> None:
    spec = RunSpec.model_validate({"train": old})
    assert spec.train.engine == engine
    assert RunSpec.model_validate(spec.model_dump()) == spec


@pytest.mark.parametrize(
    ("old", "message"),
    [
        ({"packing": "off", "engine": "graph"}, "engine has replaced packing: leave out packing"),
        ({"packing": "sometimes"}, "engine has replaced packing"),
        ({"engine": "fast"}, "'auto', 'graph'"),
    ],
)
def test_engines_that_contradict_or_do_not_exist_are_refused(
    old: dict[str, Any], message: str
) -> None:
    with pytest.raises(HarnessError, match=message):
        resolve({"train": old}, "paper")
