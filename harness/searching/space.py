"""Space of a search: recipes with alternatives, and learning rates around each recipe's own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from harness.errors import HarnessError

_CHOICE = re.compile(r"\{([^{}]*)\}")

_ADAPTER = "lora:targets={ffn|qv-ffn|all},r={16|8|32}"
_LAYERS = "lprun:select={alternate|importance|loss},heal={none|linear}"
_NEURONS = "prune_ffn:keep={0.5|0.75}"
TEMPLATES = (
    "lora_ff+lprun",
    f"{_ADAPTER}+{_LAYERS}",
    _LAYERS,
    f"{_ADAPTER}+{_NEURONS}",
    f"{_LAYERS}+{_NEURONS}",
    _ADAPTER,
    _NEURONS,
)
"""Templates that are searched unless others are named; the paper's recipe is the first."""


@dataclass(frozen=True)
class Choice:
    """One place of a template.

    Attributes:
        name: the template's text up to the end of the place, from its compressor on. Templates that
            share such a text share what was learned of it.
        values: the alternatives.
    """

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Template:
    """A recipe with alternatives in braces, such as ``lora_ff:r={8|16}+lprun``.

    Attributes:
        text: the text; an alternative is any part of a recipe, and may be empty.
    """

    text: str

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The places with alternatives, from left to right."""
        found = []
        for match in _CHOICE.finditer(self.text):
            before = self.text[: match.end()]
            found.append(Choice(_last_part(before), tuple(match[1].split("|"))))
        return tuple(found)

    def fill(self, values: Sequence[str]) -> str:
        """Return the recipe with a value in each place."""
        left = iter(values)
        return _CHOICE.sub(lambda _: next(left), self.text)

    def point(self, values: Sequence[str], octave: int) -> Point:
        """Return the point with a value in each place."""
        names = (choice.name for choice in self.choices)
        parameters = ("template", self.text), *zip(names, values, strict=True)
        return Point(self.fill(values), octave, parameters)

    def points(self, octaves: int) -> Iterator[Point]:
        """Yield every point of the template, the first alternatives first.

        Args:
            octaves: largest distance of a learning rate from the recipe's own.
        """
        for values in product(*(choice.values for choice in self.choices)):
            yield from (self.point(values, octave) for octave in range(-octaves, octaves + 1))


@dataclass(frozen=True)
class Point:
    """One point of the space.

    Attributes:
        recipe: a recipe, not yet in canonical form.
        octave: the learning rate is the recipe's own times 2 to this power.
        values: names and values of what was chosen for the recipe.
    """

    recipe: str
    octave: int
    values: tuple[tuple[str, str], ...]

    @property
    def parameters(self) -> dict[str, str | int]:
        """All that was chosen, by name."""
        return {**dict(self.values), "octave": self.octave}

    def distance(self, other: Point) -> int:
        """Return the number of choices in which two points differ."""
        return len(set(self.parameters.items()) ^ set(other.parameters.items()))


@dataclass(frozen=True)
class Space:
    """All recipes of some templates, each with the same learning rates.

    Attributes:
        templates: the templates.
        octaves: largest distance of a learning rate from the recipe's own, in factors of 2.
    """

    templates: tuple[Template, ...]
    octaves: int

    @property
    def size(self) -> int:
        """The number of points, some of which may be equal."""
        return sum(1 for _ in self.points())

    @property
    def first(self) -> list[Point]:
        """The point of each template with its first alternatives and the recipe's own rate."""
        return [next(template.points(0)) for template in self.templates]

    def points(self) -> Iterator[Point]:
        """Yield all points."""
        for template in self.templates:
            yield from template.points(self.octaves)


def read_space(texts: Sequence[str], rates: int) -> Space:
    """Read templates.

    Args:
        texts: the templates.
        rates: number of learning rates of each recipe; odd, with the recipe's own in the middle.

    Raises:
        HarnessError: a brace is not closed, an alternative is missing, or there are no templates.
    """
    for text in texts:
        rest = _CHOICE.sub("", text)
        if "{" in rest or "}" in rest:
            raise HarnessError(
                f"The braces of the recipe {text!r} do not match.",
                "Write alternatives as in lora_ff:r={8|16}+lprun",
            )
        if re.search(r"\{[^{}|]*\}", text):
            raise HarnessError(
                f"The recipe {text!r} has braces around a single alternative.",
                "Separate alternatives with |, as in lora_ff:r={8|16}; one may be empty.",
            )
        names = [choice.name for choice in Template(text).choices]
        if len(set(names)) < len(names):
            raise HarnessError(
                f"The recipe {text!r} has the same alternatives twice in one compressor.",
                "Give each option once.",
            )
    if not texts:
        raise HarnessError("There are no recipes to search.", "Name some: --compressor lora_ff")
    if rates < 1 or rates % 2 == 0:
        raise HarnessError(
            f"{rates} learning rates have no middle.", "Give an odd number, such as --rates 3"
        )
    unique = dict.fromkeys(text.strip() for text in texts)
    return Space(tuple(Template(text) for text in unique), rates // 2)


def split_templates(text: str) -> list[str]:
    """Split templates at commas outside of braces; an option follows its compressor.

    Args:
        text: templates such as ``lora_ff:r={8|16},alpha=16,lprun``.
    """
    from harness.api.parts import split_parts

    # A comma inside braces is hidden from the splitting of lists.
    hidden = _CHOICE.sub(lambda match: match[0].replace(",", "\0"), text)
    return [part.replace("\0", ",") for part in split_parts(hidden)]


def _last_part(text: str) -> str:
    """Return a template's text from its last compressor on.

    A plus inside braces is part of an alternative.
    """
    depth = 0
    for place in range(len(text) - 1, -1, -1):
        depth += (text[place] == "}") - (text[place] == "{")
        if text[place] == "+" and depth == 0:
            return text[place + 1 :]
    return text
