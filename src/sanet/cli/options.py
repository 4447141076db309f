"""What every command takes."""

from __future__ import annotations

from sanet.cli.parsing import Parser, Points
from sanet.config import (
    OWN,
    SIDES,
    WORKERS,
    Competition,
    DataConfig,
    EngineName,
    ExportFormat,
    InferenceConfig,
    MaskFormat,
    TrainConfig,
)
from sanet.demo.config import DemoConfig
from sanet.deploy.config import ProfileConfig
from sanet.experiments.config import EXPERIMENTS, ExperimentConfig

MODEL_HELP = f"run directory, model directory, hf:OWNER/NAME or exported file; {OWN} is the package's own model"
SANET_HELP = f"run directory, model directory or hf:OWNER/NAME, of a SANet; {OWN} is the package's own model"

# Numbers that are no part of a dataclass: the smallest and the largest.
RANGES = {
    "num_workers": WORKERS,
    "points": (1, 10_000),
    "pixels": (2, 10_000_000),
    "seed": (0, 2**32 - 1),
    "calibration": (1, 100_000),
    "max_miou_drop": (0, 1),
    "shorter_side": (0, SIDES[1]),
}


def train_options(parser: Parser) -> None:
    """Those of a run."""
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_argument("--recipe", type=str | None, help="a published run, as `sanet recipes` lists them")
    parser.add_argument("--resume", type=str | None, help="run directory to go on with, from its newest checkpoint")
    parser.add_class_arguments(TrainConfig, None)


def recipes_options(parser: Parser) -> None:
    """None."""


def experiment_options(parser: Parser) -> None:
    """The table and what is left to choose of it."""
    titles = [f"{name} ({found.title.partition(': ')[2] or found.title})" for name, found in EXPERIMENTS.items()]
    parser.add_argument("name", type=str, metavar="NAME", help=", ".join(titles))
    parser.add_class_arguments(ExperimentConfig, None)


def evaluate_options(parser: Parser) -> None:
    """The model, the split, and how pictures are looked at."""
    parser.add_argument("trained", type=str, metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--split", type=str, default="test", help="split to score")
    parser.add_argument("--output", type=str | None, help="folder for scores.json and report.html")
    parser.add_argument("--num_workers", type=int, default=0, help="processes that load pictures")
    views_options(parser)
    parser.add_class_arguments(DataConfig, "data", help="the data set; by default the one the run was trained on")


def scores_options(parser: Parser) -> None:
    """The results."""
    parser.add_argument("results", type=str, nargs="+", metavar="SCORES", help="scores.json files, or their folders")


def submit_options(parser: Parser) -> None:
    """The model, the competition, and how pictures are looked at."""
    parser.add_argument("trained", type=str, metavar="MODEL", help=MODEL_HELP)
    parser.add_argument(
        "--competition",
        type=Competition,
        default="comp6",
        help="comp5: trained on the data of VOC 2012 alone; comp6: on other data as well (ImageNet, SBD, COCO)",
    )
    parser.add_argument("--output", type=str, default="submission", help="folder for the results and their archive")
    views_options(parser)
    parser.add_class_arguments(DataConfig, "data", help="the data set; by default the one the run was trained on")


def predict_options(parser: Parser) -> None:
    """The pictures and the model."""
    parser.add_argument("pictures", type=str, nargs="+", metavar="PICTURE", help="files, folders and globs")
    parser.add_argument(
        "--model", type=str | None, help=f"{MODEL_HELP}; by default the package's own, for streets seen from a car"
    )
    parser.add_argument("--output", type=str, default="predictions", help="folder for what is found")
    parser.add_argument(
        "--engine", type=EngineName, default="local", help="ray: on all cores, GPUs and machines of a Ray cluster"
    )
    parser.add_argument("--workers", type=int | None, help="ray: how many at most; by default one for each GPU or core")
    views_options(parser)


def views_options(parser: Parser) -> None:
    """Device, windows, scales and mirroring."""
    parser.add_argument("--device", type=str | None, help="cpu, cuda …; by default a GPU where there is one")
    parser.add_class_arguments(InferenceConfig, None)


def download_options(parser: Parser) -> None:
    """The dataset and its folder."""
    parser.add_argument("name", type=str, metavar="NAME", help="voc or voc_aug")
    parser.add_argument("--root", type=str, required=True, help="folder for it, to be named as data.root")
    parser.add_argument("--archive", type=list[str], default=[], help="files that exist already, such as [a.tar]")


def check_data_options(parser: Parser) -> None:
    """The data set."""
    parser.add_class_arguments(DataConfig, "data", help="the data set")


def explain_options(parser: Parser) -> None:
    """The model, the image and the points."""
    parser.add_argument("trained", type=str, metavar="MODEL", help=SANET_HELP)
    parser.add_argument("image", type=str, metavar="IMAGE", help="the image")
    parser.add_argument(
        "--point",
        nargs=2,
        action=Points,
        required=True,
        metavar=("X", "Y"),
        help="column and row; may be repeated",
    )
    parser.add_argument("--heads", type=int, nargs="+", help="stages to show, such as 1 4; by default all")
    parser.add_argument(
        "--output", "--out", type=str, default="groups.png", help="the figure; its ending names the format"
    )
    parser.add_argument("--save-arrays", type=str | None, help="file for the maps themselves, as NumPy's .npz")
    _shorter_side_option(parser)
    parser.add_argument("--device", type=str | None, help="cpu, cuda …; by default a GPU where there is one")


def visualize_options(parser: Parser) -> None:
    """The images, the models and the masks."""
    parser.add_argument("images", type=str, nargs="+", metavar="IMAGE", help="files")
    parser.add_argument("--models", type=str, nargs="+", required=True, metavar="MODEL", help=f"each a {MODEL_HELP}")
    parser.add_argument(
        "--masks", type=str, nargs="+", default=[], metavar="MASK", help="ground truth of the images, in their order"
    )
    parser.add_argument("--mask_format", type=MaskFormat, default="index", help="of the masks")
    parser.add_argument(
        "--output", "--out", type=str, default="visualization.png", help="the figure; its ending names the format"
    )
    views_options(parser)


def grouping_options(parser: Parser) -> None:
    """The model and the data set."""
    parser.add_argument("trained", type=str, metavar="MODEL", help=SANET_HELP)
    parser.add_argument("--split", type=str, default="val", help="split to score")
    parser.add_argument("--points", type=int, default=3, help="points drawn of each class in each picture that has it")
    parser.add_argument("--pixels", type=int, default=2000, help="pixels drawn of each picture, to be ranked")
    parser.add_argument("--seed", type=int, default=0, help="of the draws, which are the same for every network")
    _shorter_side_option(parser)
    parser.add_argument("--device", type=str | None, help="cpu, cuda …; by default a GPU where there is one")
    parser.add_class_arguments(DataConfig, "data", help="the data set; by default the one the run was trained on")


def _shorter_side_option(parser: Parser) -> None:
    parser.add_argument(
        "--shorter_side",
        type=int | None,
        help="pixels of the shorter side that a picture is seen with, 0 for its own; by default the side that the "
        "model is meant for",
    )


def demo_options(parser: Parser) -> None:
    """The models and where the page is served."""
    parser.add_argument(
        "models",
        type=str,
        nargs="*",
        metavar="MODEL",
        help=f"run directories, or model directories; by default {OWN}, the package's, for streets seen from a car",
    )
    parser.add_argument(
        "--examples", type=str, nargs="+", default=[], metavar="PICTURE", help="pictures that visitors can choose"
    )
    parser.add_class_arguments(DemoConfig, None)


def profile_options(parser: Parser) -> None:
    """Those of a measurement."""
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(ProfileConfig, None)


def export_options(parser: Parser) -> None:
    """The model and the format."""
    parser.add_argument("trained", type=str, metavar="MODEL", help="run directory, or a model directory")
    parser.add_argument("--format", type=ExportFormat, default="onnx", help="what to write")
    parser.add_argument("--output", type=str | None, help="the file; by default beside the model, as runs/x/model.onnx")
    parser.add_argument("--split", type=str, default="val", help="onnx-int8: split on which its cost is measured")
    parser.add_argument(
        "--calibration", type=int, default=32, help="onnx-int8: pictures of the train split that set its ranges"
    )
    parser.add_argument(
        "--max-miou-drop",
        type=float,
        default=0.02,
        help="onnx-int8: largest loss of mIoU, from 0 to 1; a file that loses more is not kept",
    )
    parser.add_class_arguments(
        DataConfig, "data", help="onnx-int8: the data set; by default the one the run was trained on"
    )
