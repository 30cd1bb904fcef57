"""The notebook: cleared in git, and it runs from top to bottom on a small sample."""

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "movie_poster_genre.ipynb"


def test_outputs_are_cleared():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code"
    )


@pytest.mark.slow
def test_it_runs_on_a_small_sample(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("POSTERS = 600", "POSTERS = 420").replace("EPOCHS = 8", "EPOCHS = 2")
    # The kernel works in an empty folder, so that the run leaves nothing in the repository.
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parent.parent))
    source = notebook.cells[1].source
    assert "root = next(" in source
    notebook.cells[1].source = source.replace(
        'root = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "train_model.py").exists())',
        f"root = Path({str(NOTEBOOK.parent.parent)!r})",
    )
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = "".join(o.get("text", "") for c in notebook.cells if c.cell_type == "code" for o in c.outputs)
    assert "macro-F1" in text and (tmp_path / "notebook_run" / "model" / "model.json").is_file()
