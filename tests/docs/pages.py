"""What the pages of the documentation tell their reader to do, in the order of the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *ROOT.glob("docs/*.md")]
)
STEP = re.compile(
    r"^```(?P<language>\w*)(?P<title> .*)?\n(?P<block>.*?)^```|(?<!`)`(?P<span>[^`]+)`(?!`)", re.MULTILINE | re.DOTALL
)
# Of the code in running text, what starts with one of these words and does not end there is a command.
PROGRAMS = re.compile(r"(sanet|make|pip|git|torchrun|srun|python|\.venv/bin/\S+) ")


class Step(NamedTuple):
    """One thing to do.

    Attributes:
        kind: a command line; a Python file to run; one with a title, which is kept; a table for `sanet repeat` that
            begins with its name, which is kept as well; or one word after ``sanet``, which names a command or is one.
        text: as it stands, but for continued lines and comments of commands.
    """

    kind: Literal["command", "python", "file", "settings", "word"]
    text: str


def steps(page: Path) -> Iterator[Step]:
    """Fenced blocks and code in running text.

    Raises:
        ValueError: a block in another language than bash, Python and text, which nobody would look at.
    """
    for found in STEP.finditer(page.read_text(encoding="utf-8")):
        language, block, span = found["language"], found["block"], " ".join((found["span"] or "").split())
        if span:
            if PROGRAMS.match(span):
                yield Step("word" if re.fullmatch(r"sanet [\w-]+", span) else "command", span)
        elif language == "bash":
            yield from (Step("command", command) for command in commands(block))
        elif language == "python":
            yield Step("file" if found["title"] else "python", block)
        elif language == "yaml" and block.startswith("# "):
            yield Step("settings", block)
        elif language not in ("text", "yaml"):
            raise ValueError(f"{page}: a block of {language or 'no language'}")


def named(page: Path, pattern: str) -> set[str]:
    """What code in running text that is no command has of a pattern, as options."""
    spans = [found["span"] or "" for found in STEP.finditer(page.read_text(encoding="utf-8"))]
    return {word for span in spans if not PROGRAMS.match(span) for word in re.findall(pattern, span)}


def commands(block: str) -> list[str]:
    """Lines without comments and continuations; && and ; are split."""
    joined = re.sub(r"\\\n\s*", " ", block)
    lines = [re.sub(r"(^|\s)# .*$", "", line) for line in joined.splitlines()]
    parts = [" ".join(part.split()) for line in lines for part in re.split(r"&&|;", line)]
    return [part for part in parts if part]
