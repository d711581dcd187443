"""All methods that train few weights: each keeps the promises of a compressor, in each family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from compressors.methods import METHODS
from compressors.peft_kinds import KINDS
from harness import Backbone, HarnessError
from harness.api.plugins import installed
from harness.api.recipe import Recipe, parse
from harness.costs.capabilities import find_capabilities
from harness.data.examples import Example
from harness.evaluation.weights import merged
from harness.model.composition import compose, count_parameters
from harness.model.flops import training_flops
from harness.training.engines.packed import choose_engine

SMALL = {
    "vera": "r=8",
    "vblora": "length=8,vectors=16",
    "c3a": "block=8",
    "miss": "r=8",
    "shira": "r=4",
    "road": "group=8",
    "oft": "block=8",
    "fourierft": "n=50",
    "waveft": "n=50",
    "randlora": "r=4",
    "gralora": "r=4",
    "prompt": "tokens=4",
    "ptuning": "tokens=4,hidden=16",
    "prefix": "tokens=4",
    "houlsby": "size=4",
    "pfeiffer": "size=4",
    "freeze": "top=1",
    "peft": "type=unilora",
}
"""Options that fit layers of 16 x 24."""
VARIANTS = [
    "lora:dora=true",
    "lora:init=pissa,r=4",
    "lora:init=olora,r=4",
    "lora:init=eva,r=4",
    "lora:targets=all,rslora=true",
    "ia3:targets=all",
    "vblora:length=8,vectors=16,targets=qv",
    "oft:block=8,targets=attn-ffn.in",
    "prompt:tokens=4,init=random",
    "prefix:tokens=4,hidden=6",
    "freeze:layers=1",
]
RECIPES = [f"{name}:{SMALL[name]}" if name in SMALL else name for name in METHODS] + VARIANTS
IDS = torch.tensor([[5, 7, 11, 13, 17, 1], [8, 9, 31, 42, 44, 1]])
PROMPTS = {"prompt", "ptuning", "prefix"}
"""Methods that add positions to each sequence."""
NOT_OF_PEFT = {"bitfit", "houlsby", "pfeiffer", "freeze", "prefix"}
NOT_MERGED = {*PROMPTS, "houlsby", "pfeiffer"}
WITHOUT_UPDATES = {"bitfit", "freeze", "ln_tuning"}
"""Methods that train weights of the model, or copies of them."""


def name_in(text: str) -> str:
    return text.partition(":")[0]


def in_turn(texts: Sequence[str], *, fast: Sequence[str] | None = None) -> pytest.MarkDecorator:
    """Test every recipe in each family: in one by default, and in the others if slow tests run.

    If ``fast`` is given, only these recipes are tested by default.
    """
    default = {
        (text, number % 3) for number, text in enumerate(texts) if fast is None or text in fast
    }
    cases = [
        pytest.param(family, text, marks=() if (text, place) in default else pytest.mark.slow)
        for text in texts
        for place, family in enumerate(("t5", "gated-t5", "bart"))
    ]
    return pytest.mark.parametrize(("backbone", "text"), cases, indirect=["backbone"])


MERGED = [text for text in RECIPES if name_in(text) not in NOT_MERGED]
PACKED = [text for text in RECIPES if name_in(text) not in PROMPTS]
WITH_UPDATES = [text for text in MERGED if name_in(text) not in WITHOUT_UPDATES]
EXAMPLES = [Example([5, 7, 11, 13, 17, 1], [8, 9, 1]), Example([9, 1], [31, 42, 44, 1])]


def recipe(text: str) -> Recipe:
    return parse(text, installed().compressors)


def composed(make: Callable[[], Any], backbone: Backbone, text: str, seed: int = 7) -> Any:
    model = make()
    torch.manual_seed(seed)
    return compose(model, backbone, recipe(text))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(model.eval()(input_ids=IDS, decoder_input_ids=IDS.flip(0)).logits)


def trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def perturb(model: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trained(model).values():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.05 * noise.to(parameter.dtype))


@in_turn(RECIPES)
def test_a_skeleton_has_the_shapes_of_real_weights(
    shallow: Backbone, make_shallow: Callable[[], Any], text: str
) -> None:
    assert_equal_shapes(shallow, make_shallow, text)


@in_turn([f"{text}+lprun:strategy=top,drop=1" for text in RECIPES], fast=())
def test_a_pruned_skeleton_has_the_shapes_of_real_weights(
    shallow: Backbone, make_shallow: Callable[[], Any], text: str
) -> None:
    assert_equal_shapes(shallow, make_shallow, text)


def assert_equal_shapes(shallow: Backbone, make_shallow: Callable[[], Any], text: str) -> None:
    skeleton = compose(shallow.skeleton(), shallow, recipe(text))
    model = composed(make_shallow, shallow, text)
    assert all(parameter.is_meta for parameter in skeleton.parameters())
    assert count_parameters(skeleton) == count_parameters(model)
    assert [(n, p.shape, p.requires_grad) for n, p in skeleton.named_parameters()] == [
        (n, p.shape, p.requires_grad) for n, p in model.named_parameters()
    ]


@in_turn(RECIPES)
def test_only_what_requires_a_gradient_is_trained_and_the_loss_falls(
    shallow: Backbone, make_shallow: Callable[[], Any], text: str
) -> None:
    model = composed(make_shallow, shallow, text).eval()
    weights = trained(model)
    assert 0 < sum(p.numel() for p in weights.values()) < count_parameters(model).total
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.Adam(weights.values(), lr=0.02)
    losses = []
    for _ in range(12):
        loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        assert {n for n, p in model.named_parameters() if p.grad is not None} == set(weights)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert min(losses[1:]) < losses[0] - 0.01
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)


@in_turn(RECIPES)
def test_the_same_seed_gives_the_same_weights(
    shallow: Backbone, make_shallow: Callable[[], Any], text: str
) -> None:
    first, second = (composed(make_shallow, shallow, text).state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@in_turn(MERGED)
def test_the_merged_model_is_a_plain_one_with_the_same_logits(
    shallow: Backbone, make_shallow: Callable[[], Any], text: str
) -> None:
    plain = {name: type(module) for name, module in make_shallow().named_modules()}
    model = composed(make_shallow, shallow, text).double()  # No error of rounding hides another.
    before = logits(model)
    perturb(model)
    adapted = logits(model)
    assert not torch.allclose(adapted, before, atol=1e-4)
    (method,) = recipe(text).compressors
    model = method.merge(model)
    assert not any(isinstance(module, BaseTunerLayer) for module in model.modules())
    assert {name: type(module) for name, module in model.named_modules()} == plain
    tolerance = 2e-6 * max(1.0, float(adapted.abs().max()))
    torch.testing.assert_close(logits(model), adapted, rtol=0, atol=tolerance)


@in_turn([*WITH_UPDATES, "loha:rank_dropout=0.5", "oft:block=8,coft=true"])
def test_decoding_reads_merged_weights_and_leaves_everything_as_it_was(
    shallow: Backbone, make_shallow: Callable[[], Any], text: str
) -> None:
    model = composed(make_shallow, shallow, text)
    perturb(model)
    expected = logits(model)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    places = dict(model.named_parameters())
    random = torch.get_rng_state()
    with merged(model):
        assert all(module.training for module in model.modules())
        values = {name: weight.detach().clone() for name, weight in trained(model).items()}
        with torch.no_grad():
            for weight in trained(model).values():
                weight.fill_(torch.nan)
        found = logits(model)  # No update is computed from the trained weights.
        with torch.no_grad():
            for name, weight in trained(model).items():
                weight.copy_(values[name])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter is places[name] for name, parameter in model.named_parameters())
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@in_turn(PACKED)
def test_packed_rows_give_the_loss_and_the_gradients_of_padded_batches(
    shallow: Backbone, make_shallow: Callable[[], Any], text: str
) -> None:
    results = {}
    for packing in ("off", "on"):
        model = composed(make_shallow, shallow, text).eval()
        perturb(model)
        engine = choose_engine(
            model,
            shallow,
            device=torch.device("cpu"),
            dtype=torch.float32,
            pad_token_id=model.config.pad_token_id,
            packing=packing,
        )
        loss = engine.loss_sum(model, engine.collate(EXAMPLES))
        loss.backward()
        gradients = {name: p.grad for name, p in trained(model).items()}
        results[engine.name] = loss, gradients
    (padded, ones), (packed, others) = results["padded"], results["packed"]
    torch.testing.assert_close(packed, padded, rtol=1e-5, atol=1e-5)
    for name, gradient in ones.items():
        scale = float(gradient.abs().max())  # type: ignore[union-attr]
        torch.testing.assert_close(others[name], gradient, rtol=1e-3, atol=1e-4 * (1 + scale))


PLAIN_FLOPS: dict[str, int] = {}
"""Operations of the forward pass of each family without a method, counted once."""


@in_turn(RECIPES, fast=RECIPES[::4])
def test_operations_are_counted_on_a_skeleton(
    request: pytest.FixtureRequest, shallow: Backbone, text: str
) -> None:
    family = request.node.callspec.params["backbone"]
    if family not in PLAIN_FLOPS:
        PLAIN_FLOPS[family] = training_flops(shallow.skeleton(), 12, 8).forward
    model = compose(shallow.skeleton(), shallow, recipe(text))
    # The plain model also counts the gradients of weights that are frozen here.
    assert training_flops(model, 12, 8).forward >= PLAIN_FLOPS[family]


@in_turn(RECIPES)
def test_capabilities_are_found_on_a_skeleton(shallow: Backbone, text: str) -> None:
    capabilities = find_capabilities(shallow, recipe(text))
    assert capabilities.merges == (name_in(text) not in NOT_MERGED)
    assert capabilities.packs == (name_in(text) not in PROMPTS)
    assert capabilities.shares_beams == (name_in(text) != "prefix")
    assert capabilities.adapter_format == (None if name_in(text) in NOT_OF_PEFT else "peft")
    assert not capabilities.changes_structure


@in_turn(RECIPES)
def test_generation_agrees_with_and_without_a_cache(
    shallow: Backbone, make_shallow: Callable[[], Any], text: str
) -> None:
    model = composed(make_shallow, shallow, text).eval()
    perturb(model)
    same = {"min_new_tokens": 6, "max_new_tokens": 6, "num_beams": 2, "do_sample": False}
    cached, plain = (model.generate(input_ids=IDS, use_cache=c, **same) for c in (True, False))
    assert torch.equal(cached, plain)


@in_turn([text for text in RECIPES if name_in(text) in NOT_MERGED])
def test_what_cannot_be_merged_says_so_by_its_name(
    shallow: Backbone, make_shallow: Callable[[], Any], text: str
) -> None:
    model = composed(make_shallow, shallow, text)
    (method,) = recipe(text).compressors
    with pytest.raises(HarnessError, match=f"^{name_in(text)}: .*backbone"):
        method.merge(model)


@pytest.mark.parametrize("backbone", ["t5"], indirect=True)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("freeze:top=3", "freeze: the decoder has 2 layers"),
        ("freeze:layers=3", "freeze: the list of layers '3'"),
        ("bitfit:norms=false", "no biases to train"),
        ("miss", "miss does not fit"),
        ("shira", "shira does not fit"),
        ("c3a:block=5", "c3a does not fit"),
        ("oft", r"oft: block=32 does not divide .*: 16, 24.\n.*2, 4, 8. For example oft:block=8"),
        ("boft:block=3,targets=qv", r"boft: block=3 .*: 16.\n.*2, 4, 8, 16. For example boft"),
        ("road:group=10", "road does not fit"),
        ("vblora:length=5", "vblora does not fit"),
        ("gralora:k=7,r=7", "gralora does not fit"),
        ("gralora:k=2,r=3", "gralora does not fit these layers: r should be divisible"),
        ("fourierft:n=1000", "fourierft does not fit"),
        ("lora:init=loftq", "loftq needs a CUDA device"),
        ("lora:init=eva,r=20", "init=eva needs 20"),
        ("peft:type=lilly", "PEFT has no method 'lilly'"),
        ("peft:type=prompt_tuning", "PEFT has no method 'prompt_tuning'"),
        ("peft:type=lily,rank=3", "LilyConfig has no field 'rank'"),
    ],
)
def test_what_a_method_cannot_do_is_said_by_its_name(
    shallow: Backbone, make_shallow: Callable[[], Any], text: str, reason: str
) -> None:
    with pytest.raises(HarnessError, match=reason) as raised:
        composed(make_shallow, shallow, text)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("lora:targets=fnn", "'fnn' is no role"),
        ("lora:targets=ffn,targt=qv", "no option 'targt'"),
        ("hra:r=3", "multiple of 2"),
        ("adalora:r=12", "must be larger than r=12"),
        ("adalora:warmup=0.6,final=0.5", "leave no steps"),
        ("ia3+lora", "'ia3' cannot be combined with 'lora'"),
        ("lora_ff+adalora", "'lora_ff' cannot be combined with 'adalora'"),
        ("lorra", "Did you mean 'lora'"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(text: str, reason: str) -> None:
    with pytest.raises(HarnessError) as raised:
        recipe(text)
    assert reason in f"{raised.value.message} {raised.value.hint}"


def test_lora_kinds_can_be_combined(shallow: Backbone, make_shallow: Callable[[], Any]) -> None:
    def names(text: str) -> set[str]:
        return set(trained(composed(make_shallow, shallow, text)))

    both = names("lora:targets=self_attn.k+lora_ff")
    assert both == names("lora:targets=self_attn.k") | names("lora_ff")


def test_two_kinds_of_lora_on_the_same_layers_are_refused(
    shallow: Backbone, make_shallow: Callable[[], Any]
) -> None:
    with pytest.raises(HarnessError, match="lora_ff and lora adapt the same layers"):
        composed(make_shallow, shallow, "lora:targets=ffn.in+lora_ff")


def test_every_row_of_the_table_is_a_compressor() -> None:
    assert set(KINDS) <= set(METHODS)
    for name, method in METHODS.items():
        kind = installed().compressors.find(name).load()
        assert kind.__module__ in method.target
        assert method.rate in (None, "full") or 1e-5 <= method.rate <= 1  # type: ignore[operator]
        assert not set(kind.conflicts) & {name, "lprun"}


@pytest.mark.parametrize("backbone", ["t5", "bart"], indirect=True)
def test_eva_begins_with_the_principal_directions_of_the_inputs(
    shallow: Backbone, make_shallow: Callable[[], Any]
) -> None:
    from harness.model.contexts import default_context

    model = make_shallow()
    context = default_context(model, shallow)
    context.needs = frozenset({"data"})
    inputs: list[torch.Tensor] = []
    path, layer = list(shallow.modules(model, "ffn.in").items())[1]
    hook = layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    model.eval()
    with torch.no_grad():
        for batch in context.calibration(64):
            for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
                model(input_ids=ids[None], labels=labels[None])
    hook.remove()
    rows = torch.cat(inputs).flatten(0, 1)[:512]
    values, vectors = torch.linalg.eigh(torch.cov(rows.double().T))
    adapted = composed(make_shallow, shallow, "lora:init=eva,r=3")
    first = adapted.get_submodule(path).lora_A["lora"].weight
    along = (first.double() @ vectors.flip(1)[:, :3]).abs()
    assert values.flip(0)[2] > 1.01 * values.flip(0)[3]  # Otherwise directions are arbitrary.
    torch.testing.assert_close(along, torch.eye(3, dtype=torch.double), atol=1e-3, rtol=0)


def test_plus_gives_the_second_factors_their_own_rate(
    shallow: Backbone, make_shallow: Callable[[], Any]
) -> None:
    (lora,) = recipe("lora:plus=16").compressors
    model = composed(make_shallow, shallow, "lora:plus=16")
    (group,) = lora.parameter_groups(model)
    assert group.factor == 16
    expected = {n for n in trained(model) if ".lora_B." in n}
    assert {n for n, p in model.named_parameters() if any(p is q for q in group.parameters)} == (
        expected
    )
    (plain,) = recipe("lora").compressors
    assert not plain.parameter_groups(model)
