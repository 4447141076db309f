"""One reader of YAML: plain values, bounded work, and one line about what is wrong."""

import os
import random
import time

import pytest
import yaml

from sanet.cli.main import COMMANDS, main
from sanet.config import TrainConfig
from sanet.structures import SanetError
from sanet.yaml_files import DEEPEST, LARGEST, parse, read_mapping

NINES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)
WORDS = [
    *("", "null", "[]", "{}", "[1]", "abc", "-1", "0", "1e99", ".nan", "-.inf", "true", "99999999", "{a: 1}", "[[]]"),
    *('"x\\0y"', "*a", "&a 1", "!!int 3", "1:2", "- x", '"', "|", "\x1b", "é", "[null, null]", "[1, 2, 3]"),
]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-1.5E+2", -150.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("12", 12),
        ("'1e-3'", "1e-3"),
        ("e3", "e3"),
        ("2020-01-01", "2020-01-01"),
        ("{a: [true, null, é]}", {"a": [True, None, "é"]}),
    ],
)
def test_plain_values_are_what_they_look_like(text, value):
    assert parse(text) == value
    assert type(parse(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (NINES, "line 2, column 8: [*]a"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: 'a' is there twice"),
        ("a: {b: 1, b: 2}", "'b' is there twice"),
        ("[" * (DEEPEST + 1), f"more than {DEEPEST} levels"),
        ("[" * 100_000, f"more than {DEEPEST} levels"),
        ("a: !!python/object/apply:os.getcwd []", "line 1, column 4: tags"),
        ("a: !!timestamp x", "tags"),
        ("a: " + "9" * 5000, "digits"),
        ("a: 0x_", "invalid"),
        ("a: =", "constructor"),
        ("a: \x1b", "control characters"),
        ("a: \ud800", "surrogates"),
        ("? [1, 2]\n: 3", "unhashable"),
        ("a: 1\n---\nb: 2", "another document"),
        ("x" * (LARGEST + 1), f"more than {LARGEST}"),
    ],
)
def test_what_is_no_plain_value_is_refused_at_once_in_one_line(text, place):
    begun = time.monotonic()
    with pytest.raises(yaml.YAMLError, match=place) as caught:
        parse(text)
    assert time.monotonic() - begun < 2
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_is_named_and_never_read_without_end(tmp_path):
    path = tmp_path / "c.yaml"
    os.mkfifo(tmp_path / "pipe")
    for content in (b"\xff\xfe", b"- 1", b"", b"{", b"a: 1\na: 2", b"#" * (LARGEST + 1)):
        path.write_bytes(content)
        with pytest.raises(SanetError, match=str(path)):
            read_mapping(path)
    for other in (tmp_path, tmp_path / "none", tmp_path / "pipe"):
        with pytest.raises(SanetError, match=str(other)):
            read_mapping(other)
    path.write_bytes(b"\xef\xbb\xbfa: 1")  # as some editors write it
    assert read_mapping(path) == {"a": 1}


def damaged(text, rng):
    """A configuration with one or two lines changed, lost, repeated or indented; or cut, or with a byte off."""
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2))):
        index, kind = rng.randrange(len(lines)), rng.randrange(7)
        line = lines[index]
        if kind <= 2:
            lines[index] = f"{line.partition(':')[0]}: {rng.choice(WORDS)}"
        elif kind == 3:
            del lines[index]
        elif kind == 4:
            lines.insert(index, line)
        elif kind == 5:
            place, sign = rng.randrange(len(line)), rng.choice("\0\a\x1b:[{\u202e-&*")
            lines[index] = line[:place] + sign + line[place + 1 :]
        else:
            lines[index] = rng.choice(("  ", "    ", "- ", "")) + line.strip()
    content = bytearray("\n".join(lines), "utf-8")
    if rng.random() < 0.1:
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content[: rng.randrange(len(content))] if rng.random() < 0.1 else content)


@pytest.mark.parametrize("command", [("train", "--config"), ("train", "--resume"), ("evaluate",)])
def test_a_damaged_configuration_is_read_or_refused_in_one_line(command, tmp_path, monkeypatch, capsys):
    """Whatever is wrong with it, the command ends with one line and status 1 or 2, or has settings that can be."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    config, taken = tmp_path / "run" / "config.yaml", []

    monkeypatch.setattr(COMMANDS[command[0]], "__call__", lambda self: taken.append(self))
    TrainConfig().save(config)
    whole = config.read_text(encoding="utf-8")
    given = [*command, "run/config.yaml" if command[-1] == "--config" else "run"]
    assert main(given) == 0
    statuses = []
    for seed in range(100):
        config.write_bytes(damaged(whole, random.Random(seed)))
        try:
            statuses.append(main(given))
        except SystemExit as stop:
            statuses.append(stop.code)
        said = capsys.readouterr().err.splitlines()
        assert statuses[-1] in {0, 1, 2}
        assert len([line for line in said if not line.endswith("--help` lists the options")]) == (statuses[-1] != 0)
    assert statuses.count(0) == len(taken) - 1
    assert 5 < statuses.count(0) < 50  # some changes are none, as that of a number
