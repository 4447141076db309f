"""What a setting may name, and what it may not."""

import sys
import textwrap
from functools import partial

import pytest
import torch

from sanet import references
from sanet.references import Kind, Reference, digests, name_of, opened, use
from sanet.structures import SanetError, UsageError

MODULE = """
import os
from os import system
from torch.optim import SGD

class Thing:
    def __init__(self, *arguments, size=1):
        if size < 0:
            raise ValueError("size below 0")
        self.arguments, self.size = arguments, size

def double(value, times=2):
    return times * value

_hidden = double
NUMBER = 3
"""


def one(value):
    return value


KIND = Kind("thing", {"one": one, "list": list}, {"torch.optim": "torch.optim:Optimizer"})


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A package that is installed nowhere, and not opened yet."""
    package = tmp_path / "a_lab"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "things.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(references, "_opened", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == "a_lab"]:
        del sys.modules[name]


def test_a_module_is_found_once_it_is_open_and_not_before(lab):
    with pytest.raises(UsageError, match="--import a_lab"):
        KIND.find("a_lab.things:Thing")
    assert "a_lab" not in sys.modules
    use("a_lab")
    assert opened() == ["a_lab"]
    assert sys.path[-1] == str(lab.parent)
    made = KIND.build({"name": "a_lab.things:Thing", "options": {"size": 3}}, "x")
    assert (made.arguments, made.size) == (("x",), 3)
    assert name_of(made) == name_of(type(made)) == "a_lab.things:Thing"
    # A function is bound, or called where there is something to call it with.
    assert KIND.build({"name": "a_lab.things:double", "options": {"times": 5}})(2) == 10
    assert KIND.build({"name": "a_lab.things:double", "options": {"times": 5}}, 2) == 10
    assert KIND.build("a_lab.things:double")(2) == 4


@pytest.mark.parametrize("name", ["system", "os", "SGD", "_hidden", "NUMBER", "Thing.mro", "__builtins__", ""])
def test_only_what_a_module_defines_itself_is_found(lab, name):
    use("a_lab.things")
    with pytest.raises(UsageError):
        KIND.find(f"a_lab.things:{name}")


@pytest.mark.parametrize(
    "name",
    [
        "os:system", "torch.hub:load", "torch:load", "builtins:eval", "subprocess:Popen", "importlib:import_module",
        "torch.optim:sys", "torch.optim.lr_scheduler:StepLR", "torch.optim:Tensor", "torch.optim.missing:SGD",
        "torch.optimizer:SGD", "torch.optim.._functional:sgd", "a_lab.missing:Thing", "sanet.files:replaced", ":", "x:",
        "__main__:Thing",
    ],
)  # fmt: skip
def test_everything_else_is_refused(lab, name):
    use("a_lab")
    with pytest.raises(UsageError):
        KIND.build(name)


def test_a_class_of_a_well_known_package_needs_no_opening():
    assert KIND.find("torch.optim:Adam") is torch.optim.Adam
    with pytest.raises(UsageError, match="did you mean 'Adam'"):
        KIND.find("torch.optim:Adamm")
    with pytest.raises(UsageError, match="learning rate"):
        KIND.build({"name": "torch.optim:Adam", "options": {"lr": -1}}, [torch.zeros(1)])


def test_builtins_objects_and_mistakes(lab):
    use("a_lab")
    assert KIND.build("one") is one
    assert KIND.build(one) is one
    thing = partial(one)
    assert KIND.build(thing) is thing
    assert KIND.build({"name": "list"}, (1, 2)) == [1, 2]
    for value, named in (
        ("on", "did you mean 'one'"),
        ({"name": "one", "option": {}}, "option"),
        ({"options": {}}, "name"),
        ({"name": "one", "options": {"vlaue": 1}}, "vlaue"),
        ({"name": "a_lab.things:Thing", "options": {"size": -1}}, "size below 0"),
        ({"name": "a_lab.things:Thing", "options": {"length": -1}}, "length"),
        ("a_lab.things:Thin", "did you mean 'Thing'"),
    ):
        with pytest.raises(UsageError, match=named):
            KIND.build(value)
    assert Reference.of("thing", {"name": "one", "options": None}) == Reference("one", {})


def test_a_module_whose_code_fails(lab):
    (lab / "broken.py").write_text("1 / 0")
    with pytest.raises(SanetError, match=r"a_lab\.broken.*ZeroDivisionError"):
        use("a_lab.broken")
    with pytest.raises(SanetError, match="no_such_lab"):
        use("no_such_lab")


def test_a_digest_changes_with_the_code_of_the_package(lab):
    assert digests() == {}
    use("a_lab.things")
    before = digests()
    assert [*before] == ["a_lab"]
    assert digests() == before
    (lab / "other.py").write_text("")
    assert digests() != before
    use("pytest")
    assert digests()["pytest"] == pytest.__version__
    assert digests({"pytest", "never_opened"}) == {"pytest": pytest.__version__}
    assert digests(()) == {}
