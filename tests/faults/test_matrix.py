"""The matrix is whole: every row has its test, and the document has every row."""

import ast
from pathlib import Path

from tests.faults import matrix

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "reliability.md"


def test_every_row_has_a_test_and_the_other_way_round() -> None:
    names = {
        node.name.removeprefix("test_")
        for file in HERE.glob("test_*.py")
        if file != Path(__file__)
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert names == set(matrix.ROWS)


def test_the_document_has_the_promises_of_today() -> None:
    promised = {name: (row.fault, row.promise) for name, row in matrix.ROWS.items()}
    written = {name: row[:2] for name, row in matrix.written(DOCUMENT).items()}
    assert written == promised
