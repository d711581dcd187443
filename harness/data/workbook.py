"""Excel workbooks; needs the extra ``xlsx``."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

from harness.data.table import kind_of, malformed, require_distinct
from harness.errors import HarnessError


def read_workbook(path: Path, sheet: str | None) -> tuple[dict[str, list[object]], tuple[str, ...]]:
    """Read a sheet whose first row names the columns.

    Args:
        path: the .xlsx file.
        sheet: name of the sheet; None means the first.

    Returns:
        (the columns, notes on guesses)

    Raises:
        HarnessError: the extra is missing, the file is damaged, or there is no such sheet.
    """
    try:
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as error:
        raise HarnessError(
            f"{path}: reading Excel workbooks needs the package openpyxl.",
            'pip install "seq2seq-harness[xlsx]", or save the sheet as CSV.',
        ) from error
    try:
        book = load_workbook(path, read_only=True, data_only=True)
        names = book.sheetnames
        if sheet is not None and sheet not in names:
            raise HarnessError(
                f"{path}: there is no sheet {sheet!r}.", f"Its sheets: {', '.join(names)}"
            )
        chosen = sheet or names[0]
        rows = [list(row) for row in book[chosen].iter_rows(values_only=True)]
        book.close()
    # The errors of the reader for broken XML are not documented.
    except (BadZipFile, InvalidFileException, KeyError, ValueError, SyntaxError) as error:
        raise malformed(path, "the workbook cannot be read", str(error)) from error
    rows = [row for row in rows if any(cell is not None for cell in row)]
    if not rows:
        return {}, ()
    header = rows[0]
    while header and header[-1] is None:
        header.pop()
    for number, name in enumerate(header, start=1):
        if not isinstance(name, str):
            raise malformed(path, f"column {number}", f"its header is {kind_of(name)}")
    require_distinct(path, header)
    columns = {
        name: [row[i] if i < len(row) else None for row in rows[1:]]
        for i, name in enumerate(header)
    }
    notes: tuple[str, ...] = ()
    if sheet is None and len(names) > 1:
        notes = (
            f"{path.name}: read the first of its {len(names)} sheets, {chosen!r}; set another one "
            "with --set task_options.sheet=NAME",
        )
    return columns, notes
