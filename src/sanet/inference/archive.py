"""The archives of torch.export and TorchScript, made safe to open.

Both are zip files that hold a program, and PyTorch's own readers trust them. ``torch.export.load`` unpickles tensors,
constants and example inputs where the archive says so, falls back to unrestricted unpickling by itself, loads compiled
libraries, evaluates sizes, guards and names as Python, and calls any function below ``torch`` that the graph names.
``torch.jit.load`` has a reader in C++ that knows tensors and the program's own types only; but a program may
read and write files, also while it is loaded.

So only what an export of a network consists of is copied into a new archive, and that one is handed to PyTorch. What
is not part of such an export is refused by name.
"""

from __future__ import annotations

import json
import re
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

from sanet.structures import SanetError

METADATA = "sanet.json"

# Records of a torch.export archive, below its top folder.
RECORDS = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|data/weights/model_weights_config\.json"
    r"|data/constants/model_constants_config\.json|data/sample_inputs/model\.pt|models/model\.json"
    rf"|extra/{re.escape(METADATA)}|archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id",
    re.ASCII,
)
EXAMPLES, PROGRAM = "data/sample_inputs/model.pt", "models/model.json"

# Every text of a program is a (dotted) name, but for these kinds, which have rules of their own.
NAME = re.compile(r"[\w.+:]*", re.ASCII)
# In two operators a graph can open files; the other ones compute.
TARGET = re.compile(
    r"_operator\.\w+|math\.trunc|torch\.sym_\w+|torch\.ops\.aten\.(?!(?:save|from_file)\b)\w+\.\w+"
    r"|torch\.ops\.higher_order\.wrap_with_(?:autocast|set_grad_enabled)",
    re.ASCII,
)
SIZE_WORDS = (
    "Add|Mul|Pow|Max|Min|Abs|Mod|PythonMod|ModularIndexing|FloorDiv|CeilDiv|CleanDiv|IntTrueDiv|FloatTrueDiv|CeilToInt"
    "|FloorToInt|TruncToInt|ToFloat|Piecewise|Equality|Unequality|Eq|Ne|GreaterThan|StrictGreaterThan|LessThan"
    "|StrictLessThan|Ge|Gt|Le|Lt|And|Or|Not|Symbol|Integer|Rational|Half|One|Zero|NegativeOne|Float|positive"
    "|nonnegative|integer|true|false|True|False"
)
SIZE = re.compile(rf"(?:(?:{SIZE_WORDS})\b|'[su]\d+'|[su]\d+\b|\d+(?:\.\d+)?(?!\w)|[-+*/%<>=!&|~(),\s])*", re.ASCII)
TREE = re.compile(
    r'(?:"(?:type|context|children_spec|null|\[\]|builtins\.(?:tuple|list|dict))"|null|\d+|[][{}:,\s])*', re.ASCII
)
RULES = {"target": TARGET, "expr_str": SIZE, "in_spec": TREE, "out_spec": TREE}

# Words by which TorchScript's source opens files, or runs while it is loaded.
FORBIDDEN = re.compile(rb"\b(?:save|from_file|__setstate__)\b")


def checked_torch_export(path: Path) -> BytesIO:
    """The archive of an exported program, for ``torch.export.load``: nothing in it is unpickled or evaluated freely.

    Raises:
        SanetError: the file is no such archive, or holds something that an export of a network does not.
    """
    records = _records(path)
    for name, content in records.items():
        if not RECORDS.fullmatch(name) or (name == EXAMPLES and content):
            raise SanetError(f"{path} holds {name}, which is no part of an export of a network; it is not opened")
    for name in [name for name in records if name.endswith(".json") and not name.startswith("extra/")]:
        parsed = _parsed(records[name], path, name)
        if name == PROGRAM:
            _drop_what_is_for_people(parsed)
        _check_texts(parsed, path)
        # Written anew, so that PyTorch reads what was checked, whatever its parser makes of a key that comes twice.
        records[name] = json.dumps(parsed).encode()
    return _archive(records)


def checked_torchscript(path: Path) -> BytesIO:
    """The archive of a TorchScript program, for ``torch.jit.load``: one that opens no file.

    Raises:
        SanetError: the file is no such archive, or its source has words that no network needs.
    """
    records = without_debug_records(_records(path))
    for name, content in records.items():
        found = FORBIDDEN.search(content) if name.startswith("code/") else None
        if found:
            raise SanetError(f"{path}: {name} says {found[0].decode()!r}, which no network needs; it is not opened")
    return _archive(records)


def without_debug_records(records: dict[str, bytes]) -> dict[str, bytes]:
    """All but the notes on where in the source a program comes from, which name the folders of who made it."""
    return {name: content for name, content in records.items() if not name.endswith(".debug_pkl")}


def strip_debug_records(path: Path) -> None:
    """Rewrite a TorchScript file without its notes on the source."""
    path.write_bytes(_archive(without_debug_records(_records(path))).getvalue())


def _records(path: Path) -> dict[str, bytes]:
    """Contents by name below the archive's one top folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise SanetError(f"{path} cannot be read: {error}") from error
    if len({name.partition("/")[0] for name in contents}) != 1:
        raise SanetError(f"{path} cannot be read: it is no archive of PyTorch")
    return {name.partition("/")[2]: content for name, content in contents.items()}


def _archive(records: dict[str, bytes]) -> BytesIO:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in records.items():
            archive.writestr(f"model/{name}", content)
    stream.seek(0)
    return stream


def _parsed(content: bytes, path: Path, name: str) -> Any:
    try:
        return json.loads(content)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise SanetError(f"{path}: {name} cannot be read: {error}") from error


def _drop_what_is_for_people(value: Any) -> None:
    """Take stack traces and other notes out of a program, and guards, which ``ExportedModel`` has of its own."""
    if isinstance(value, dict):
        for key, entry in value.items():
            if key == "metadata":
                value[key] = {}
            elif key == "guards_code":
                value[key] = []
            else:
                _drop_what_is_for_people(entry)
    elif isinstance(value, list):
        for entry in value:
            _drop_what_is_for_people(entry)


def _check_texts(value: Any, path: Path, key: str = "") -> None:
    if isinstance(value, dict):
        for name, entry in value.items():
            if not NAME.fullmatch(name) or (name == "use_pickle" and entry is not False):
                raise SanetError(f"{path} says {name[:80]!r}: {entry!r:.80}; it is not opened")
            _check_texts(entry, path, name)
    elif isinstance(value, list):
        for entry in value:
            _check_texts(entry, path, key)
    # The text arguments of operators stay texts: PyTorch quotes them.
    elif isinstance(value, str) and key != "as_string" and not RULES.get(key, NAME).fullmatch(value):
        raise SanetError(f"{path} says {key}: {value[:80]!r}, which no network needs; it is not opened")
