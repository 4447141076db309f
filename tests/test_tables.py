"""Tables of text come back cell by cell, and are aligned."""

from sanet.tables import markdown_table, percent, text_table

HEADER, ROWS = ("name", "figure (G)"), [("a", "1.5"), ("longer", "—"), ("", "1234567.25")]


def test_a_markdown_table_comes_back_and_is_aligned():
    lines = markdown_table(HEADER, ROWS).splitlines()
    assert [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in (lines[0], *lines[2:])] == [
        HEADER,
        *ROWS,
    ]
    assert len({len(line) for line in lines}) == 1
    assert lines[1:3] == ["| :----- | ---------: |", "| a      |        1.5 |"]


def test_a_table_for_a_terminal_is_aligned():
    lines = text_table(HEADER, ROWS).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert (lines[0].split(), lines[2].split()) == (["name", "figure", "(G)"], ["a", "1.5"])


def test_percent():
    assert [percent(value) for value in (0.12345, 1, float("nan"))] == ["12.3", "100.0", "—"]
