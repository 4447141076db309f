"""What the choices in ``sanet.deploy.quantize`` are worth: mIoU and size of other int8 variants of one ONNX file.

python docs/results/export/int8_variants.py MODEL.onnx CAMVID > docs/results/export/int8-variants.json
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from sanet.config import DataConfig
from sanet.data.catalog import data_source
from sanet.deploy.export import quiet
from sanet.deploy.quantize import evenly_spaced
from sanet.evaluation.evaluate import evaluate_dataset
from sanet.inference.exported import open_exported
from sanet.inference.views import label_picture

CHOSEN = {
    "per_channel": True,
    "activation_type": QuantType.QUInt8,
    "weight_type": QuantType.QInt8,
    "reduce_range": True,
}
VARIANTS: dict[str, tuple[int, dict[str, Any]]] = {
    "as sanet export": (32, {}),
    "16 calibration pictures": (16, {}),
    "weights of 8 bits, not 7": (32, {"reduce_range": False}),
    "signed activations": (32, {"activation_type": QuantType.QInt8}),
    "one scale per tensor": (32, {"per_channel": False}),
    "convolutions only": (32, {"op_types_to_quantize": ["Conv"]}),
}


class Reader(CalibrationDataReader):
    """Evenly spaced pictures of CamVid's train split."""

    def __init__(self, source: Any, count: int) -> None:
        pictures = source.open("train")
        self.images = (pictures[index].image for index in evenly_spaced(len(pictures), count))

    def get_next(self) -> dict[str, Any] | None:
        """The next one as the network's input."""
        image = next(self.images, None)
        return None if image is None else {"images": image[None].numpy()}


def main(model: Path, root: str) -> None:
    """Print the figures as JSON."""
    source = data_source(DataConfig("camvid", root))
    validation = source.open("val")

    def measured(path: Path) -> dict[str, float]:
        network = open_exported(path, "cpu")
        scores = evaluate_dataset(lambda image: label_picture(network, image, 1024), validation, {}).scores
        return {"miou_val": scores.miou, "bytes": path.stat().st_size}

    found = {"float": measured(model)}
    with TemporaryDirectory() as folder:
        prepared, target = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        for name, (count, changes) in VARIANTS.items():
            with quiet():
                quantize_static(prepared, target, Reader(source, count), **{**CHOSEN, **changes})
            found[name] = measured(target)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
