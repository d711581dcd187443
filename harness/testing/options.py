"""Checks of a plugin's options: each is documented, wrong values are errors, right ones work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from harness.api.options import validate
from harness.errors import HarnessError, first_line
from harness.testing.result import CheckFailedError, DoesNotApplyError

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from harness.api.options import Options

_DRAWS = 8
_STRANGE = "no-such-value"
"""Text that is no number, no truth value and no choice."""


def check_options(model: type[Options], given: Mapping[str, Any], owner: str) -> None:
    """Check that options are documented, have valid defaults, and refuse wrong values by name.

    Args:
        model: the model of the options.
        given: valid values for the options that have no default.
        owner: name of the plugin.

    Raises:
        CheckFailedError: an option breaks one of these.
        DoesNotApplyError: there are no options.
    """
    fields = model.model_fields
    if not fields:
        raise DoesNotApplyError("it has no options")
    silent = [name for name, info in fields.items() if not (info.description or "").strip()]
    if silent:
        raise CheckFailedError(
            f"the option {silent[0]!r} is not documented; write a docstring under its field",
            "Options",
        )
    validate(model, given, owner)
    properties = model.model_json_schema()["properties"]
    wrong = [
        *((name, value) for name in fields for value in _wrong_values(properties[name])),
        *([] if model.model_config.get("extra") == "allow" else [("no_such_option", _STRANGE)]),
    ]
    for name, value in wrong:
        try:
            validate(model, {**given, name: value}, owner)
        except HarnessError as error:
            if name not in str(error):
                raise CheckFailedError(
                    f"the error of {name}={value} does not name the option: {error.message}",
                    "Options",
                ) from error
        else:
            raise CheckFailedError(f"{name}={value} is accepted", "Options")


def _kinds(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the alternatives of a field, without null."""
    return [s for s in schema.get("anyOf", [schema]) if s.get("type") != "null"]


def _wrong_values(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Yield values that a field must refuse, as far as its type and bounds tell."""
    kinds = _kinds(schema)
    types = {kind.get("type") for kind in kinds}
    if types <= {"integer", "number", "boolean"} or all("enum" in kind for kind in kinds):
        yield _STRANGE
    for kind in kinds if types <= {"integer", "number"} else []:
        if "minimum" in kind:
            yield kind["minimum"] - 1
        if "exclusiveMinimum" in kind:
            yield kind["exclusiveMinimum"]
        if "maximum" in kind:
            yield kind["maximum"] + 1
        if "exclusiveMaximum" in kind:
            yield kind["exclusiveMaximum"]


def check_draws(
    model: type[Options], given: Mapping[str, Any], use: Callable[[dict[str, Any]], object]
) -> None:
    """Draw valid values with hypothesis; using them works or ends in a HarnessError.

    Args:
        model: the model of the options.
        given: values that stay.
        use: uses the plugin with the values that were drawn.

    Raises:
        CheckFailedError: another exception; it names the simplest values that lead to it.
        DoesNotApplyError: there is no option whose values can be drawn.
        HarnessError: hypothesis is not installed.
    """
    require_hypothesis()
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis import given as drawn
    from hypothesis import strategies as st

    properties = model.model_json_schema()["properties"]
    strategies = {
        name: strategy
        for name, schema in properties.items()
        if name not in given and (strategy := _strategy(schema, _default(model, name))) is not None
    }
    if not strategies:
        raise DoesNotApplyError("it has no option whose values can be drawn")

    @settings(
        max_examples=_DRAWS,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],  # No explanation, which is not shown.
        suppress_health_check=list(HealthCheck),
    )
    @drawn(st.fixed_dictionaries({}, optional=strategies))
    def property_of_values(values: dict[str, Any]) -> None:
        try:
            use({**given, **values})
        except HarnessError:
            return  # It refuses values that do not fit together, or this model.
        except Exception as error:
            shown = ",".join(f"{name}={value}" for name, value in values.items())
            raise CheckFailedError(
                f"the options {shown or '(defaults)'} raise {type(error).__name__}: "
                f"{first_line(error)}; raise a HarnessError that says what fits"
            ) from error

    property_of_values()


def _default(model: type[BaseModel], name: str) -> Any:
    default = model.model_fields[name].get_default(call_default_factory=True)
    return None if default is PydanticUndefined else default


def _strategy(schema: Mapping[str, Any], default: Any) -> SearchStrategy[Any] | None:
    """Return the values of a field near its default; None if only its author knows them."""
    from hypothesis import strategies as st

    kind = _kinds(schema)[0]
    if "enum" in kind:
        return st.sampled_from(kind["enum"])
    if kind.get("type") == "boolean":
        return st.booleans()
    if kind.get("type") not in ("integer", "number"):
        return None
    least = kind.get("minimum", kind.get("exclusiveMinimum", 0))
    usual = default if isinstance(default, (int, float)) else least
    most = kind.get("maximum", kind.get("exclusiveMaximum", max(2 * usual, least + 8)))
    if kind["type"] == "integer":
        first = int(least) + ("exclusiveMinimum" in kind)
        last = int(most) - ("exclusiveMaximum" in kind)
        step = kind.get("multipleOf", 1)
        return st.integers(-(-first // step), last // step).map(lambda n: n * step)
    return st.floats(
        float(least),
        float(most),
        exclude_min="exclusiveMinimum" in kind,
        exclude_max="exclusiveMaximum" in kind,
        allow_subnormal=False,
    )


def require_hypothesis() -> None:
    """Check that hypothesis is installed.

    Raises:
        HarnessError: it is not.
    """
    try:
        import hypothesis  # noqa: F401
    except ImportError as error:
        raise HarnessError(
            "The checks need the package hypothesis.", "pip install 'seq2seq-harness[testing]'"
        ) from error
