"""The notebook of examples/ runs from its first cell to its last, in a kernel of its own."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from sanet.evaluation.results import read_scores

NOTEBOOK = Path(__file__).parents[2] / "examples" / "labelme.ipynb"


@pytest.mark.slow
def test_a_folder_of_labelme_files_becomes_a_model_its_errors_and_an_export(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two would wait for each other beside other tests
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    run = tmp_path / "runs" / "photos"
    evaluation = read_scores(run / "test" / "scores.json")
    assert evaluation.scores.miou > 1 / 11
    assert (run / "errors" / "errors.html").is_file()
    said = notebook.cells[-1].outputs[-1].text
    assert float(said.split("%")[0].split()[-1]) >= 99.9


def test_its_cells_were_run_once_each_in_their_order():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
