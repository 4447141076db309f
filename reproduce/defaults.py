"""``sanet train`` with its own plan, against networks of segmentation_models_pytorch in as many seconds.

They share the images, crops, flips, ImageNet weights, threads and seconds; theirs are trained as one would write it in
an afternoon: cross-entropy, AdamW, a cosine, and the better of two learning rates, on val with the first seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

import sanet
from reproduce.opening import boundary, open_test
from sanet import DataConfig, RepeatConfig, TrainConfig

SETS = {
    "streets": "camvid",
    "animals": "reproduce.small:Animals",
    "cracks": "reproduce.small:Cracks",
    "retina": "reproduce.small:Retina",
}
BASELINES = {"smp_unet": ("U-Net", 32), "smp_fpn": ("FPN", 32), "smp_deeplabv3plus": ("DeepLabV3+", 16)}
RATES = (0.001, 0.0003)


def compare_defaults(data: str, root: str, budget: str, output: str, seeds: int, log: Path) -> None:
    """Train what is not trained yet, choose by val, and open test once for what was chosen.

    Args:
        data: of ``SETS``.
        root: its folder.
        budget: the time of each run, such as 10m.
        output: folder for the plan, the runs and the tables; the same call resumes.
        seeds: runs of each row.
        log: CSV file where every opening of test is written down.
    """
    source, folder = DataConfig(SETS[data], root), Path(output)
    planned = folder / "plan.yaml"
    if not planned.is_file():
        given = TrainConfig(data=source, **yaml.safe_load(f"budget: {budget}"))
        folder.mkdir(parents=True, exist_ok=True)
        planned.write_text(str(sanet.plan(given, given=["budget"])), encoding="utf-8")
    base = yaml.safe_load(planned.read_text(encoding="utf-8"))
    base.pop("data")
    labels = sanet.data_source(source).labels
    base["metrics"] = boundary(len(labels), labels.ignore_index)
    rows = {"plan": {"label": "sanet train"}} | {
        f"{name}-{rate}": _baseline(name, rate) for name in BASELINES for rate in RATES
    }
    title = f"sanet train on {data}, {budget} a run"
    settings: dict[str, Any] = {"title": title, "base": base, "costs": False}
    on_val: dict[str, Any] = {"data": source, "split": "val", "output": output}
    chosen = _best(sanet.repeat(RepeatConfig(rows=rows, seeds=1, name="rates", **on_val, **settings)))
    settings["rows"] = {name: rows[name] for name in ("plan", *chosen)}
    settings["comparisons"] = [["plan", name] for name in chosen]
    sanet.repeat(RepeatConfig(seeds=seeds, name="val", **on_val, **settings))
    place = folder / "defaults.yaml"
    recipe = settings | {"data": {"name": SETS[data]}, "name": "test", "seeds": seeds}
    place.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    open_test(place, root, output, seeds, log)
    print((folder / "test.md").read_text(encoding="utf-8"))


def _baseline(name: str, rate: float) -> dict[str, Any]:
    """What differs from the plan."""
    label, stride = BASELINES[name]
    return {
        "label": f"{label}, {rate:g}",
        "model": {"name": name, "output_stride": stride, "options": {}},
        "loss": {"terms": {"mask": 1.0}, "class_weighting": "none"},
        "optimizer": {"name": "adamw", "learning_rate": rate, "head_lr_multiplier": 1.0, "weight_decay": 0.01},
    }


def _best(found: Any) -> Sequence[str]:
    """Of each baseline the row with the better mIoU."""
    mious = {row.name: run.scores.miou for row in found.rows for run in row.runs.values()}
    return [max((f"{name}-{rate}" for rate in RATES), key=mious.__getitem__) for name in BASELINES]
