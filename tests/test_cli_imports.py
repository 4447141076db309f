"""What settings may import: nothing. Modules are opened by --import, on the command line alone."""

import os
import pkgutil
import subprocess
import sys
from importlib import import_module

import pytest
import yaml

import sanet
from sanet import references
from sanet.cli.main import COMMANDS, main
from sanet.cli.parsing import create_parser, settings_in
from sanet.config import TrainConfig
from sanet.references import Kind
from sanet.structures import UsageError

NEEDED = {
    "download": ["voc", "--root", "x"],
    "evaluate": ["m"],
    "errors": ["m"],
    "next": ["x", "--model", "m"],
    "score": ["x"],
    "compare": ["x"],
    "convert": ["x", "y"],
    "predict": ["x"],
    "explain": ["m", "x", "--point", "1", "1"],
    "grouping": ["m"],
    "visualize": ["x", "--models", "m"],
    "export": ["m"],
    "serve": ["m"],
}
FILES = [name for name in COMMANDS if "--config" in create_parser(name, COMMANDS[name]).format_help()]
CALL = "{class_path: os.mkdir, init_args: {path: touched}}"
VALUES = [CALL, f"[{CALL}]", f"{{x: {CALL}}}", f"{{x: {{y: [{CALL}]}}}}", "canary.Evil", "{class_path: canary.Evil}"]
# Reads lists of words behind a command, and prints how each ends.
EVERY = """
import sys, yaml
from sanet.cli.main import COMMANDS
from sanet.cli.parsing import parse
for words in yaml.safe_load(sys.stdin):
    try:
        parse(sys.argv[1], COMMANDS[sys.argv[1]], words)
        print(0)
    except (SystemExit, ValueError) as stop:
        print(2)
assert "canary" not in sys.modules
"""


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A module in the working directory, and what its import leaves behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(references, "_opened", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "canary.py").write_text("open('touched', 'w').close()\nclass Evil: pass\n")
    yield tmp_path / "touched"
    sys.modules.pop("canary", None)


def names_in(command):
    """The names of all its settings, and of its sections."""
    names = [*settings_in(COMMANDS[command])]
    return names, sorted({name.partition(".")[0] for name in names if "." in name})


def statuses(command, lines):
    """How settings of these words end, in a process that could import the canary."""
    done = subprocess.run(
        [sys.executable, "-c", EVERY, command],
        input=yaml.safe_dump(lines),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *filter(None, sys.path)])},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [int(line) for line in done.stdout.split()]


@pytest.mark.parametrize(
    "command",  # those of plan are those of train
    [pytest.param(name, marks=pytest.mark.slow if name == "plan" else []) for name in COMMANDS],
)
def test_no_setting_of_a_command_imports_what_it_names(command, canary):
    names, sections = names_in(command)
    options = [*names, *sections]
    lines = [[*NEEDED.get(command, []), f"--{name}", value] for name in options for value in VALUES]
    if command in FILES:
        for number, (name, value) in enumerate((name, value) for name in options for value in VALUES):
            section, _, key = name.rpartition(".")
            (canary.parent / f"{number}.yaml").write_text(
                f"{section}: {{{key}: {value}}}" if section else f"{key}: {value}"
            )
            lines.append(["--config", f"{number}.yaml"])
    ends = statuses(command, lines)
    assert not canary.exists()
    # A section is never one call or one name.
    assert {end for end, line in zip(ends, lines, strict=True) if line[-2].removeprefix("--") in sections} <= {2}


@pytest.mark.parametrize("command", FILES)
@pytest.mark.parametrize("text", ["import: canary", "import: [canary]", "config: other.yaml", "{import: canary, x: 1}"])
def test_a_file_opens_no_module_and_names_no_other_file(command, text, canary, capsys):
    (canary.parent / "other.yaml").write_text("import: canary")
    (canary.parent / "c.yaml").write_text(text)
    assert main([command, "--config", "c.yaml"]) == 2
    said = capsys.readouterr().err
    assert ".yaml" in said
    assert text.strip("{").partition(":")[0] in said
    assert not canary.exists()


@pytest.mark.parametrize("command", [["train", "--resume"], ["evaluate"], ["grouping"], ["export"]])
def test_a_run_opens_no_module(command, canary, capsys):
    (canary.parent / "run").mkdir()
    TrainConfig().save(canary.parent / "run" / "config.yaml")
    with (canary.parent / "run" / "config.yaml").open("a") as file:
        file.write("import: canary\n")
    assert main([*command, "run"]) == 2
    assert "run/config.yaml: import" in capsys.readouterr().err
    assert not canary.exists()


def kinds():
    """Everything in the package that settings choose from."""
    for module in pkgutil.walk_packages(sanet.__path__, "sanet."):
        if module.name != "sanet.__main__":
            loaded = import_module(module.name)
            yield from (value for value in vars(loaded).values() if isinstance(value, Kind))


@pytest.mark.parametrize("kind", sorted({kind.word: kind for kind in kinds()}.items()), ids=lambda item: item[0])
@pytest.mark.parametrize("name", ["torch.hub:load", "os:system", "canary:Evil", "torch:load", "builtins:eval"])
def test_no_kind_of_reference_reaches_what_nobody_opened(kind, name, canary):
    with pytest.raises(UsageError, match=name):
        kind[1].build(name)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("data.name", "{}"),
        ("model.name", "{}"),
        ("loss.terms", "{{'{}': 1}}"),
        ("optimizer.name", "{}"),
        ("schedule.name", "{}"),
        ("transforms", "['{}']"),
        ("batch_transforms", "['{}']"),
        ("metrics", "{{x: '{}'}}"),
        ("callbacks", "['{}']"),
        ("loggers", "['{}']"),
    ],
)
@pytest.mark.parametrize("name", ["torch.hub:load", "canary:Evil"])
def test_training_refuses_what_nobody_opened(option, value, name, canary, capsys):
    given = ["--model.backbone", "test_resnet", "--model.pretrained_backbone", "false", "--accelerator", "cpu"]
    assert main(["train", *given, "--output", "run", f"--{option}", value.format(name)]) == 2
    assert name in capsys.readouterr().err
    assert not canary.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--import", "canary", "check-data", "--data.name", "nobody"],
        ["check-data", "--data.name", "nobody", "--import=canary"],
    ],
)
def test_the_command_line_opens_modules_before_or_behind_the_command(words, canary):
    assert main(words) == 2  # there is no such dataset
    assert references.opened() == ["canary"]
    assert canary.exists()


def test_a_wrong_command_line_opens_nothing_and_a_module_that_fails_is_named(canary, capsys):
    for words in (["--import", "canary", "check-data", "--nothing", "x"], ["check-data", "--import"]):
        with pytest.raises(SystemExit, match="2"):
            main(words)
    assert not canary.exists()
    (canary.parent / "broken.py").write_text("1 / 0")
    assert main(["--import", "broken", "check-data"]) == 2
    assert "broken: ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_module_that_is_not_there_is_wrong_usage_of_every_command(command, canary, capsys):
    words = [command, *NEEDED.get(command, [])]
    for given in (["--import", "nosuch", *words], [*words, "--import", "nosuch"]):
        assert main(given) == 2
        assert "--import nosuch" in capsys.readouterr().err
