"""Hashes the sample pictures with Meta's PDQ code: `python pdq.py` writes `golden/pdq.json`.

pip install pillow==13.0.0 pdqhash==0.2.8 numpy==2.4.6, as committed. `pdqhash` is a binding to the reference;
what it leaves out is what Meta's own tool does first: it samples a picture with a side over 512 down to
512 × 512, taking for each place the pixel at floor(i × side / 512). `hash` and `quality` are that tool's;
`whole` is of the unsampled picture and `smooth` of one that Pillow resized, as other tools of Meta do.
"""

import json
import pathlib

import numpy
import pdqhash
from PIL import Image, ImageOps

here = pathlib.Path(__file__).parent
SIDE = 512


def over_white(image):
    rgba = numpy.asarray(image.convert("RGBA")).astype(numpy.uint32)
    alpha = rgba[:, :, 3:]
    total = rgba[:, :, :3] * alpha + 255 * (255 - alpha) + 128
    return ((total + (total >> 8)) >> 8).astype(numpy.uint8)


def hashed(pixels):
    bits, quality = pdqhash.compute(numpy.ascontiguousarray(pixels))
    return f"{int(''.join(str(bit) for bit in bits), 2):064x}", int(quality)


def entry(pixels):
    height, width = pixels.shape[:2]
    whole, _ = hashed(pixels)
    if max(height, width) <= SIDE:
        hash, quality = hashed(pixels)
        return {"hash": hash, "quality": quality}
    rows = [i * height // SIDE for i in range(SIDE)]
    columns = [i * width // SIDE for i in range(SIDE)]
    hash, quality = hashed(pixels[rows][:, columns])
    smooth, _ = hashed(numpy.asarray(Image.fromarray(pixels).resize((SIDE, SIDE))))
    return {"hash": hash, "quality": quality, "whole": whole, "smooth": smooth}


def pattern(width, height):
    """Drawn alike in the test: whole numbers only."""
    y, x = numpy.mgrid[0:height, 0:width]
    pixels = numpy.stack([(x * x // 7 + y * 3) % 256, (x * 5 + y * y // 11) % 256, (x * y // 13) % 256], axis=2)
    return pixels.astype(numpy.uint8)


entries = {}
for size in ((5, 5), (64, 64), (63, 65), (128, 128), (129, 300), (512, 512), (511, 17), (513, 100), (1000, 800), (2049, 1537)):
    entries[f"pattern {size[0]}x{size[1]}"] = entry(pattern(*size))
for path in sorted((here / "golden").glob("*.png")):
    name = path.name.removesuffix(".png")
    # Of an animation only the first frame has a hash.
    if (here / name).exists():
        with Image.open(path) as image:
            entries[name] = entry(over_white(image))
for path in sorted((here / "../../samples").resolve().iterdir()):
    if path.suffix in (".jpg", ".png", ".webp", ".bmp"):
        with Image.open(path) as image:
            entries[f"samples/{path.name}"] = entry(over_white(ImageOps.exif_transpose(image)))
(here / "golden" / "pdq.json").write_text(json.dumps(entries, indent=1) + "\n")
