"""How often exported files, and the client without sanet, label as the model does.

python benchmarks/agreement.py OUTPUT.csv CAMVID

With the bundled model, on 50 images of CamVid's test split (SegNet layout), spread evenly over it, one view as `sanet
predict` has by default. OUTPUT.csv has the share of equal pixels of each image; what is printed follows from it.
"""

import csv
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from tqdm import tqdm

from sanet import Predictor, export, load_model
from sanet.tables import text_table

IMAGES = 50
CLIENT = Path(__file__).parent.parent / "examples" / "exported.py"
FILES = {
    "logits": {},
    "logits, opset 17": {"opset": 17},
    "labels": {"outputs": "labels"},
    "labels+confidence": {"outputs": "labels+confidence"},
}


def main(output: Path, camvid: Path) -> None:
    """Write the table of all images, and print the mean and the smallest share of each way."""
    images = sorted((camvid / "test").glob("*.png"))
    images = [images[place] for place in np.linspace(0, len(images) - 1, IMAGES).astype(int)]
    model, rows = Predictor("streets", "cpu"), []
    with TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{number}.onnx" for number, name in enumerate(FILES)}
        for name, path in paths.items():
            export(load_model("streets"), path, progress=False, **FILES[name])
        files = {name: Predictor(path) for name, path in paths.items()}
        for image in tqdm(images):
            expected, mask = model(image).mask, Path(folder) / "mask.png"
            for name, path in paths.items():
                subprocess.run([sys.executable, CLIENT, path, image, mask], check=True)
                found = {"file": files[name](image).mask, "client": np.array(Image.open(mask))}
                rows += [(image.name, name, by, float((labels == expected).mean())) for by, labels in found.items()]
    with output.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "outputs", "by", "equal"), *rows])
    shares = {
        (name, by): [row[3] for row in rows if row[1:3] == (name, by)] for name in FILES for by in ("file", "client")
    }
    table = [(*way, f"{np.mean(of):.7f}", f"{min(of):.7f}") for way, of in shares.items()]
    print(text_table(("outputs", "by", "mean", "smallest"), table))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
