"""Label a picture by a file of `sanet export`, without sanet: exported.py MODEL.onnx PICTURE MASK.png (one view)."""

import json, sys  # noqa: E401, I001
import numpy as np, onnxruntime  # noqa: E401
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["sanet.json"])
picture, stored = ImageOps.exif_transpose(Image.open(sys.argv[2])), about.get("images")
pixels = np.atleast_3d(picture if stored else picture.convert("RGB")).astype(np.float32)
if stored:  # values of any depth; what is outside the range counts as its end
    pixels = np.clip(pixels, np.float32(stored["low"]), np.float32(stored["high"]))
height, width = pixels.shape[:2]
pixels = np.pad(pixels, [(0, max(0, 32 - height)), (0, max(0, 32 - width)), (0, 0)], "edge")
size, shorter = pixels.shape[:2], about["shorter_side"]
rows, columns = (max(32, round(shorter / min(size) * side)) if shorter else side for side in size)
assert rows * columns <= about["window"] ** 2, "so large a picture needs windows: sanet predict"
planes = [Image.fromarray(plane).resize((columns, rows), Image.BILINEAR) for plane in np.moveaxis(pixels, 2, 0)]
images = np.stack(planes)[None] if stored else np.rint(planes).astype(np.uint8)[None]
if len(session.get_inputs()) == 2:  # exported with --outputs labels
    labels = session.run(["labels"], {"images": images, "size": np.array(size)})[0][0]
else:
    logits = session.run(["logits"], {"images": images})[0][0]
    for axis, side in enumerate(size, 1):  # to the size of the picture, linearly between the centres of pixels
        last = logits.shape[axis] - 1
        places = np.clip((np.arange(side) + 0.5) * (last + 1) / side - 0.5, 0, last)
        share = (places % 1).astype(np.float32).reshape((-1, 1) if axis == 1 else -1)
        below, above = (logits.take(end.astype(int), axis) for end in (places, np.ceil(places)))
        logits = below + (above - below) * share
    labels = logits.argmax(0).astype(np.uint8 if len(logits) <= 256 else np.uint16)
Image.fromarray(labels[:height, :width]).save(sys.argv[3])
