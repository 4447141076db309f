"""The whole path on the built-in data: train SANet and the FCN it is compared with, score both, predict, report."""

import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

import sanet
from sanet.data.catalog import data_source
from sanet.demo.serve import EXAMPLES
from sanet.inference.predict import Engine, predict_collection
from sanet.training.metrics import read_metrics

OUTPUT = Path("runs/demo")
DATA = sanet.DataConfig(name="scenes")


def recipe(network: str) -> sanet.TrainConfig:
    """The same backbone, data, schedule and loss for both networks."""
    return sanet.TrainConfig(
        output=str(OUTPUT / network),
        data=DATA,
        augmentation=sanet.AugmentationConfig(crop=(128, 160), scale=(1, 1), jitter=0),
        model=sanet.ModelConfig(name=network, backbone="tf_efficientnet_lite0", output_stride=16),
        epochs=12,
    )


def main() -> int:
    """Run the demo; returns the exit status."""
    if OUTPUT.exists():
        print(f"{OUTPUT} is there already; to run the demo again: rm -r {OUTPUT}", file=sys.stderr)
        return 1
    start = time.monotonic()
    scores = {}
    for network in ("sanet", "fcn"):
        print(f"\nTraining {network} on the built-in scenes")
        run = sanet.train(recipe(network))
        history = read_metrics(run.directory)
        test = sanet.evaluate(run.directory / "model", DATA, "test", run.directory / "test", history=history)
        scores[network] = test.scores

    print("\nLabelling three held-out scenes")
    held_out = data_source(DATA).open("test")
    pictures = OUTPUT / "pictures"
    pictures.mkdir()
    for index in range(3):
        sample = held_out[index]
        Image.fromarray(np.ascontiguousarray(sample.image.permute(1, 2, 0))).save(pictures / f"{sample.name}.png")
    predict_collection(Engine(str(OUTPUT / "sanet" / "model")), [str(pictures)], OUTPUT / "predictions")

    print("\nLabelling two streets with the package's own model")
    predict_collection(Engine("streets"), [str(EXAMPLES)], OUTPUT / "streets")

    print(f"\nOn held-out scenes, after {time.monotonic() - start:.0f} s:")
    for network, score in scores.items():
        print(f"  {network:6} mIoU {score.miou:.3f}   pixel accuracy {score.pixel_accuracy:.3f}")
    print(f"""
Look at:
  {OUTPUT}/sanet/test/report.html   scores, curves and the worst pictures
  {OUTPUT}/predictions/overlays     what SANet made of three of them
  {OUTPUT}/streets/overlays         what the package's own model made of two streets
Then try your own pictures, in photos/images with their masks in photos/masks:
  . .venv/bin/activate
  sanet check-data photos
  sanet train --data.root photos --output runs/leaf
  sanet predict photos/images --model runs/leaf""")
    return 0


if __name__ == "__main__":
    sys.exit(main())
