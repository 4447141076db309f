"""The names of ``sanet``: imported when first used, and the same for people, type checkers and Python."""

import ast
import subprocess
import sys
from pathlib import Path

import sanet


def test_every_public_name_is_found_where_type_checkers_are_told():
    tree = ast.parse(Path(sanet.__file__).read_text(encoding="utf-8"))
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    told = {(alias.name, alias.asname, node.module) for node in checked.body for alias in node.names}
    assert told == {(name, name, home) for name, home in sanet._HOME_OF.items()}
    assert all(getattr(sanet, name) is not None for name in sanet.__all__)
    assert dir(sanet) == sanet.__all__


def test_importing_the_package_costs_nothing():
    subprocess.run([sys.executable, "-c", "import sanet, sys; assert 'torch' not in sys.modules"], check=True)
