"""SANet's time over FCN's, in PyTorch, with batch norms folded into the convolutions before them, and in ONNX Runtime.

python benchmarks/ratios.py OUTPUT.csv   # images of 512x512, output stride 8, 2 threads

All take turns; OUTPUT.csv gets the seconds of every pass.
"""

import csv
import sys
from copy import deepcopy
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

import sanet
from sanet.deploy.export import export

BACKBONE, SIDE, ROUNDS = "resnet50", 512, 12


def folded(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """A copy without the batch norms that follow a convolution, whose weights scale and shift in their place."""
    model, made = deepcopy(model), {}

    def fold(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        if isinstance(layer, nn.Conv2d):
            made[id(output)] = layer, output  # kept, so that no other tensor gets its id
        elif conv := made.get(id(inputs[0]), (None,))[0]:
            state = layer.running_mean, layer.running_var, layer.eps, layer.weight, layer.bias
            conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *state)
            layer.forward = getattr(layer, "act", nn.Identity()).forward

    hooks = [
        part.register_forward_hook(fold) for part in model.modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d)
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return model


def main(output: str) -> None:
    """Measure, write and print."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    images = torch.randint(0, 256, (1, 3, SIDE, SIDE), dtype=torch.uint8)
    ways: dict[tuple[str, str], sanet.Predictor] = {}
    with TemporaryDirectory() as place:
        for name in ("fcn", "sanet"):
            model = sanet.create_model(name, BACKBONE, num_classes=21, output_stride=8).eval()
            graph = Path(place) / f"{name}.onnx"
            export(model, graph, progress=False)
            for engine, of in {"torch": model, "folded": folded(model, images), "onnxruntime": graph}.items():
                ways[name, engine] = sanet.Predictor(of, "cpu")
        expected, seconds = {}, {way: [] for way in ways}
        for _ in range(ROUNDS + 1):
            for way, predictor in ways.items():
                start = perf_counter()
                logits = predictor.logits_of(images)
                seconds[way].append(perf_counter() - start)
                torch.testing.assert_close(logits, expected.setdefault(way[0], logits), rtol=1e-3, atol=1e-3)
    with Path(output).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["network", "backbone", "computed by", "seconds"])
        table.writerows([way[0], BACKBONE, way[1], f"{each:.4f}"] for way in ways for each in seconds[way][1:])
    medians = {way: median(values[1:]) for way, values in seconds.items()}
    for engine in ("torch", "folded", "onnxruntime"):
        fcn, both = medians["fcn", engine], medians["sanet", engine]
        print(f"{engine:12} FCN {fcn:.3f} s, SANet {both:.3f} s, {both / fcn:.2f} times as long")


if __name__ == "__main__":
    main(*sys.argv[1:])
