"""The Dockerfile, as far as it can be read: what it copies exists, what it installs is locked, who runs what."""

import json
import re
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from sanet.cli.main import command_of
from sanet.cli.serving import Serve

ROOT = Path(__file__).parents[2]
TEXT = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
STEPS = [line.split(" ", 1) for line in TEXT.splitlines() if line and not line.startswith("#")]


def needed(*names):
    """The packages of these names, and all that these need here."""
    found, left = set(), [*names]
    while left:
        name = left.pop().lower().replace("_", "-")
        if name not in found:
            found.add(name)
            wanted = map(Requirement, requires(name) or [])
            left += [each.name for each in wanted if not each.marker or each.marker.evaluate({"extra": ""})]
    return found


def test_all_that_is_installed_is_in_the_locks():
    """Of what the extra needs, neither more nor less than what is not in the lock of the package."""
    (step,) = [step for kind, step in STEPS if kind == "RUN" and "awk" in step]
    taken = {*re.search(r"\^\(([\w|-]+)\)==", step)[1].split("|")}
    package, everything = (
        {*re.findall(r"^([\w.-]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)}
        for name in ("requirements.txt", "requirements-dev.txt")
    )
    assert taken <= everything
    if f"\nfastapi=={version('fastapi')} " not in (ROOT / "requirements-dev.txt").read_text(encoding="utf-8"):
        pytest.skip("other versions than the lock's are installed, which need other packages")
    assert needed("fastapi", "uvicorn") - package == taken


def test_what_is_copied_exists_and_nobody_is_root():
    for kind, step in STEPS:
        if kind == "COPY":
            assert all((ROOT / name).exists() for name in step.split()[:-1])
    user = next(place for place, (kind, _) in enumerate(STEPS) if kind == "USER")
    assert STEPS[user][1] != "root"
    assert {kind for kind, _ in STEPS[user:]} == {"USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    program, *words = [word for kind, step in STEPS if kind in ("ENTRYPOINT", "CMD") for word in json.loads(step)]
    command = command_of(words)
    assert (program, type(command), command.model) == ("sanet", Serve, "streets")
    assert ("EXPOSE", str(command.server.port)) in [tuple(step) for step in STEPS]
