"""The numbers of the paper, against its text and against exact counts."""

from collections import defaultdict

import pytest

from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.reporting.paper import PaperCell, paper_cell, paper_cells


def test_every_table_has_all_its_rows() -> None:
    rows: defaultdict[tuple[str, str], int] = defaultdict(int)
    for cell in paper_cells():
        rows[cell.table, cell.task] += 1
    assert rows == {
        ("3", "mimic_discharge"): 6,
        ("4a", "mimic_discharge"): 8,
        ("4b", "mimic_radiology"): 8,
        ("5a", "hcm"): 8,
        ("5b", "icliniq"): 8,
        ("6", "mimic_discharge"): 9,
    }


def test_a_cell_reads_as_printed() -> None:
    cell = paper_cell("t5-large", "lora_ff+lprun", "hcm")
    assert cell
    assert (cell.table, cell.speed_pct, cell.trained_params, cell.mem_gb) == (
        "5a",
        222,
        4_700_000,
        11.66,
    )
    assert cell.metrics["rouge1"] == 27.27
    assert cell.metrics["bleu4_precision"] == 1.81


def test_the_cell_with_most_metrics_is_chosen_and_tables_agree() -> None:
    cell = paper_cell("bart-large", "full", "mimic_discharge")
    assert cell
    assert cell.table == "4a"
    assert set(cell.metrics) == {"rouge1", "rouge2", "rougeL", "bertscore", "summac"}
    printed: dict[tuple[str, str, str], list[PaperCell]] = defaultdict(list)
    for printed_cell in paper_cells():
        printed[printed_cell.backbone, printed_cell.recipe, printed_cell.task].append(printed_cell)
    for cells in printed.values():
        for field in ("speed_pct", "trained_params", "mem_gb"):
            assert len({getattr(printed_cell, field) for printed_cell in cells}) == 1


@pytest.mark.parametrize(
    ("recipe", "recipe_of_paper"),
    [
        ("lora_ff:paper_compat=true+lprun", "lora_ff+lprun"),
        ("full:paper_compat=true", "full"),
        ("lora_ff:paper_compat=true,r=4", "lora_ff:r=4"),
    ],
)
def test_the_paper_compat_option_does_not_change_the_cell(
    recipe: str, recipe_of_paper: str
) -> None:
    cell = paper_cell("bart-large", recipe, "mimic_discharge")
    assert cell is not None
    assert cell == paper_cell("bart-large", recipe_of_paper, "mimic_discharge")


def test_a_recipe_or_backbone_that_is_not_in_the_paper_has_no_cell() -> None:
    assert paper_cell("bart-large", "lora_ff:r=64", "mimic_discharge") is None
    assert paper_cell("nano-t5", "full", "hcm") is None


def test_recipes_tasks_and_backbones_are_known_and_canonical() -> None:
    plugins = installed()
    for cell in paper_cells():
        assert str(parse(cell.recipe, plugins.compressors)) == cell.recipe
        plugins.tasks.find(cell.task)
        plugins.backbones.find(cell.backbone)
