"""A look at everything: label two streets, train SANet and the FCN that it is compared with, and see both on a page."""

import sys
import time
from pathlib import Path

import sanet
from sanet.demo.serve import EXAMPLES
from sanet.inference.predict import Engine, predict_collection

OUTPUT = Path("runs/demo")
SCENES = sanet.RepeatConfig(
    title="SANet and FCN on drawn scenes",
    data=sanet.DataConfig(name="scenes"),
    seeds=1,
    base={
        "augmentation": {"crop": [128, 160], "scale": [1, 1], "jitter": 0},
        "model": {"backbone": "tf_efficientnet_lite0", "output_stride": 16},
        "epochs": 4,
        "validate_every": 4,
    },
    rows={"sanet": {"label": "SANet"}, "fcn": {"label": "FCN", "model": {"name": "fcn"}}},
    comparisons=(("sanet", "fcn"),),
    costs=False,
    output=str(OUTPUT),
    name="scenes",
)


def main() -> int:
    """Run the demo; returns the exit status."""
    if OUTPUT.exists():
        print(f"{OUTPUT} is there already; to run the demo again: rm -r {OUTPUT}", file=sys.stderr)
        return 1
    start = time.monotonic()
    print("Labelling two streets with the package's own model")
    predict_collection(Engine("streets"), [str(EXAMPLES)], OUTPUT / "streets")
    print(f"{time.monotonic() - start:.0f} s: the first picture is {min(OUTPUT.glob('streets/overlays/*'))}")

    print("\nTraining SANet, then FCN, on 320 drawn scenes: about 5 minutes on two cores")
    sanet.repeat(SCENES)
    print(f"""
{time.monotonic() - start:.0f} s. Look at {OUTPUT}/scenes.html: what both make of the same scenes, and their scores.

Then try your own images, in photos/images with their masks in photos/masks:
  . .venv/bin/activate
  sanet train --data.root photos --output runs/leaf
  sanet predict photos/images --model runs/leaf""")
    return 0


if __name__ == "__main__":
    sys.exit(main())
