"""Where the time of a network goes: seconds in its backbone, in each layer of its head, and in what lies between.

python benchmarks/parts.py [network] [backbone]   # medians of passes at 512x512, output stride 8, 2 threads
"""

import sys
from collections import defaultdict
from statistics import median
from time import perf_counter

import torch

from sanet.models.networks import create_model

PASSES, WARM_UP = 15, 3


def main(network: str = "sanet", backbone: str = "resnet50") -> None:
    """Print milliseconds by part."""
    torch.set_num_threads(2)
    model = create_model(network, backbone, num_classes=21, output_stride=8).eval()
    model.to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (1, 3, 512, 512), dtype=torch.uint8)
    seconds, started = defaultdict(list), {}
    layers = {f"head.{name}": layer for name, layer in model.head.named_modules() if name and not [*layer.children()]}
    for name, module in {"whole": model, "backbone": model.backbone, "head": model.head, **layers}.items():
        module.register_forward_pre_hook(lambda *_, name=name: started.update({name: perf_counter()}))
        module.register_forward_hook(lambda *_, name=name: seconds[name].append(perf_counter() - started[name]))
    with torch.inference_mode():
        for _ in range(WARM_UP + PASSES):
            model(images)
    medians = {name: 1000 * median(values[WARM_UP:]) for name, values in seconds.items()}
    medians["head, between its layers"] = medians["head"] - sum(medians[name] for name in layers if name in medians)
    medians["around: normalisation, last resize"] = medians["whole"] - medians["backbone"] - medians["head"]
    for name, value in sorted(medians.items(), key=lambda item: -item[1]):
        print(f"{value:8.2f} ms  {name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
