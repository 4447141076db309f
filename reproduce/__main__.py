"""``python -m reproduce TABLE`` runs a table of the paper, and prints it; see also ``submit`` and so on."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import sanet
from reproduce.defaults import SETS, compare_defaults
from reproduce.published import PUBLISHED, published_table
from reproduce.recipes import RECIPES
from reproduce.tables import TABLES, table_of
from sanet import DataConfig, InferenceConfig, SanetError


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    made = argparse.ArgumentParser("python -m reproduce", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True)
    for name, table in TABLES.items():
        one = commands.add_parser(name, help=table.title)
        one.add_argument("--data", default=None, help="name of the dataset; by default the paper's")
        one.add_argument("--root", required=True, help="folder of the dataset")
        one.add_argument("--classes", nargs="+", default=[], help="class names of a folder of yours")
        one.add_argument("--output", default="experiments", help="folder for the runs and the table")
        one.add_argument("--seeds", type=int, default=3, help="runs of each row")
        one.add_argument("--epochs", type=int, help="in place of the recipes'")
        one.add_argument("--crop", type=int, nargs=2, help="height and width, in place of the recipes'")
        one.add_argument("--backbones", nargs="+", default=[], help="timm models, the smallest first")
        one.add_argument("--rows", nargs="+", default=[], help="some of its rows, such as sanet/resnet50.tv_in1k")
        one.add_argument("--init-from", help="run or model whose weights all rows start from")
        one.add_argument("--gradient-accumulation", type=int, default=1, help="parts in which a step is computed")
        one.add_argument("--untrained", action="store_true", help="start without ImageNet weights")
        one.add_argument("--num-workers", type=int, default=1, help="processes that load images")
        one.add_argument("--cpu", action="store_true", help="train on the CPU")
    submit = commands.add_parser("submit", help="pack results on VOC's test images for its server")
    submit.add_argument("model")
    submit.add_argument("--root", required=True, help="folder with VOCdevkit")
    submit.add_argument("--output", default="submission")
    submit.add_argument("--competition", choices=("comp5", "comp6"), default="comp6")
    submit.add_argument("--scales", type=float, nargs="+", default=[1.0])
    submit.add_argument("--flip", action="store_true")
    opening = commands.add_parser("open-test", help="score the finished runs of a recipe on test, and log it")
    opening.add_argument("recipe", type=Path)
    opening.add_argument("--root", required=True, help="folder of the dataset")
    opening.add_argument("--output", required=True, help="folder of the runs")
    opening.add_argument("--seeds", type=int, required=True, help="seeds that all rows were trained with")
    opening.add_argument("--log", type=Path, default=Path("docs/results/test-openings.csv"))
    curves = commands.add_parser("readings", help="how fast the readings of the paper's head learn")
    curves.add_argument("data", choices=("animals", "cracks"))
    curves.add_argument("--root", required=True, help="folder of the dataset")
    curves.add_argument("--epochs", type=int, required=True, help="the length of each training")
    curves.add_argument("--output", default="runs/readings", help="folder for the runs")
    curves.add_argument("--seeds", type=int, default=2, help="runs of each row")
    defaults = commands.add_parser("defaults", help="sanet train with its own plan, against others in as many seconds")
    defaults.add_argument("data", choices=SETS)
    defaults.add_argument("--root", required=True, help="folder of the dataset")
    defaults.add_argument("--budget", default="10m", help="time of each run")
    defaults.add_argument("--output", required=True, help="folder for the runs")
    defaults.add_argument("--seeds", type=int, default=3, help="runs of each row")
    defaults.add_argument("--log", type=Path, default=Path("docs/results/test-openings.csv"))
    published = commands.add_parser("published", help="a table as the paper has it, and what trains its rows here")
    published.add_argument("table", choices=sorted({row.table for row in PUBLISHED}))
    masks = commands.add_parser("coco-masks", help="make the masks of COCO's annotations")
    masks.add_argument("root")
    return made


def main() -> int:
    """Run one command; the exit status."""
    given = parser().parse_args()
    sanet.use("reproduce")
    try:
        if given.command == "coco-masks":
            from reproduce.coco import render_masks

            print(render_masks(Path(given.root)))
        elif given.command == "open-test":
            from reproduce.opening import open_test

            open_test(given.recipe, given.root, given.output, given.seeds, given.log)
        elif given.command == "readings":
            from reproduce.readings import run

            run(given.data, given.root, given.epochs, given.output, given.seeds)
        elif given.command == "published":
            print(published_table(given.table))
        elif given.command == "defaults":
            compare_defaults(given.data, given.root, given.budget, given.output, given.seeds, given.log)
        elif given.command == "submit":
            from reproduce.voc_server import submit

            inference = InferenceConfig(scales=tuple(given.scales), flip=given.flip)
            print(f"for the server: {submit(given.model, given.root, given.output, given.competition, inference)}")
        else:
            run_table(given)
    except SanetError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 1
    return 0


def run_table(given: argparse.Namespace) -> None:
    """Run a table and print it."""
    first = next(recipe for key, recipe in RECIPES.items() if key.startswith(f"{given.command}-"))
    data = DataConfig(given.data or first.config.data.name, given.root, classes=tuple(given.classes))
    settings = {
        "num_workers": given.num_workers,
        "accelerator": "cpu" if given.cpu else "auto",
        "gradient_accumulation": given.gradient_accumulation,
    }
    crop = tuple(given.crop) if given.crop else None
    config = table_of(
        given.command, data, given.backbones, given.epochs, crop, settings, seeds=given.seeds, output=given.output
    )
    unknown = set(given.rows) - config.rows.keys()
    if unknown:
        raise SanetError(f"no rows {', '.join(sorted(unknown))}; there are {', '.join(config.rows)}")
    rows = {name: row for name, row in config.rows.items() if not given.rows or name in given.rows}
    for row in rows.values():
        row["model"] |= {"init_from": given.init_from}
        row["model"]["pretrained_backbone"] &= not given.untrained
    pairs = tuple(pair for pair in config.comparisons if set(pair) <= rows.keys())
    sanet.repeat(replace(config, rows=rows, comparisons=pairs))
    print(Path(config.output, f"{config.name}.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
