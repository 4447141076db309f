"""The names of ``sanet``: imported when first used, and the same for people, type checkers and Python."""

import ast
import doctest
import io
import subprocess
import sys
from pathlib import Path

import sanet
from brightness import write_pictures


def test_every_public_name_is_found_where_type_checkers_are_told():
    tree = ast.parse(Path(sanet.__file__).read_text(encoding="utf-8"))
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    told = {(alias.name, alias.asname, node.module) for node in checked.body for alias in node.names}
    assert told == {(name, name, home) for name, home in sanet._HOME_OF.items()}
    assert all(getattr(sanet, name) is not None for name in sanet.__all__)
    assert dir(sanet) == sanet.__all__


def test_importing_the_package_costs_nothing():
    subprocess.run([sys.executable, "-c", "import sanet, sys; assert 'torch' not in sys.modules"], check=True)


def test_examples_in_docstrings_run(tmp_path, monkeypatch):
    """As they are written, beside a folder of photos."""
    write_pictures(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    found = {name: getattr(sanet, name) for name in sanet.__all__}
    tests = [test for name, each in found.items() for test in doctest.DocTestFinder().find(each, name, globs={})]
    tests = [test for test in tests if test.examples]
    assert len(tests) >= 5
    for test in tests:
        said = io.StringIO()
        doctest.DocTestRunner().run(test, out=said.write)
        assert not said.getvalue()
