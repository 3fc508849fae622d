"""Makes the sample pictures beside it, with the colours Pillow reads from them: `python make.py`.

Written and committed with Pillow 13.0.0. Everything is drawn here; nothing is taken from elsewhere.
Each `golden/NAME.png` holds Pillow's own reading of `NAME`: upright, 8-bit, RGB or RGBA.
"""

import io
import math
import pathlib
import random
import struct
import zlib

from PIL import Image, ImageDraw, ImageOps

here = pathlib.Path(__file__).parent
(here / "golden").mkdir(exist_ok=True)


def scene(width=72, height=56):
    """Smooth colour with an off-centre shape, so that turning and mirroring show."""
    image = Image.new("RGB", (width, height))
    for y in range(height):
        for x in range(width):
            image.putpixel(
                (x, y),
                (
                    int(127 + 120 * math.sin(x / 17)),
                    int(255 * y / (height - 1)),
                    int(127 + 120 * math.cos((x + 2 * y) / 23)),
                ),
            )
    draw = ImageDraw.Draw(image)
    draw.ellipse((8, 6, 34, 28), fill=(230, 40, 30))
    draw.rectangle((44, 36, 70, 52), fill=(20, 60, 200))
    return image


def noise(width=48, height=32):
    rng = random.Random(7)
    return Image.frombytes("RGB", (width, height), bytes(rng.randrange(256) for _ in range(width * height * 3)))


def keep(name, data, mode="RGB", upright=False):
    (here / name).write_bytes(data)
    with Image.open(io.BytesIO(data)) as image:
        image.seek(0)
        image.load()
        if upright:
            image = ImageOps.exif_transpose(image)
        image.convert(mode).save(here / "golden" / f"{name}.png", optimize=True)


def save(image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def relabel(jpeg, transform):
    """Changes the colour transform in the Adobe marker: 0 CMYK or RGB, 2 YCCK."""
    at = jpeg.index(b"Adobe") + 11
    return jpeg[:at] + bytes([transform]) + jpeg[at + 1 :]


def without_adobe(jpeg):
    at = jpeg.index(b"\xff\xee")
    length = struct.unpack(">H", jpeg[at + 2 : at + 4])[0]
    return jpeg[:at] + jpeg[at + 2 + length :]


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


picture = scene()

# JPEG
keep("baseline_420.jpg", save(picture, "JPEG", quality=90, subsampling=2))
keep("baseline_444.jpg", save(picture, "JPEG", quality=95, subsampling=0))
keep("baseline_422.jpg", save(picture, "JPEG", quality=90, subsampling=1))
keep("restarts.jpg", save(picture, "JPEG", quality=90, subsampling=2, restart_marker_blocks=3))
keep("progressive.jpg", save(picture, "JPEG", quality=90, subsampling=2, progressive=True))
keep("gray.jpg", save(picture.convert("L"), "JPEG", quality=90))
keep("gray_progressive.jpg", save(picture.convert("L"), "JPEG", quality=90, progressive=True))
keep("rgb.jpg", save(picture, "JPEG", quality=95, keep_rgb=True))
keep("noise.jpg", save(noise(), "JPEG", quality=75, subsampling=2))
keep("odd.jpg", save(picture.resize((37, 23)), "JPEG", quality=92, subsampling=2))
keep("line.jpg", save(picture.resize((301, 1)), "JPEG", quality=92, subsampling=2))
cmyk = picture.convert("CMYK")
keep("cmyk.jpg", save(cmyk, "JPEG", quality=95))
keep("cmyk_progressive.jpg", save(cmyk, "JPEG", quality=95, progressive=True))
keep("cmyk_no_adobe.jpg", without_adobe(save(cmyk, "JPEG", quality=95)))
keep("ycck.jpg", relabel(save(cmyk, "JPEG", quality=95), 2))
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    keep(f"exif_{orientation}.jpg", save(picture.resize((48, 32)), "JPEG", quality=90, exif=exif), upright=True)

# A thumbnail inside EXIF: a whole JPEG, end marker and all, within the first segment.
thumbnail = save(picture.resize((24, 16)), "JPEG", quality=60)
tiff = b"II*\0" + struct.pack("<I", 8)
ifd0 = struct.pack("<HHHIIi", 1, 0x0112, 3, 1, 1, 26)
ifd1 = struct.pack("<H", 2) + struct.pack("<HHII", 0x0201, 4, 1, 56) + struct.pack("<HHII", 0x0202, 4, 1, len(thumbnail))
exif = b"Exif\0\0" + tiff + ifd0 + ifd1 + struct.pack("<I", 0) + thumbnail
plain = save(picture.resize((48, 32)), "JPEG", quality=90)
keep("exif_thumbnail.jpg", plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:])

# Two pictures in one multi-picture file.
(here / "mpo.jpg").write_bytes(save(picture, "MPO", save_all=True, append_images=[noise()], quality=70))

# PNG
small = picture.resize((48, 32))
palette = small.quantize(16)
keep("palette.png", save(palette, "PNG"))
keep("palette_trns.png", save(palette, "PNG", transparency=bytes([0, 128] + [255] * 14)), mode="RGBA")
one_bit = small.convert("1")
keep("one_bit.png", save(one_bit, "PNG"))
fade = small.copy()
fade.putalpha(Image.linear_gradient("L").resize(small.size))
keep("rgba.png", save(fade, "PNG"), mode="RGBA")
keep("gray_alpha.png", save(fade.convert("LA"), "PNG"), mode="RGBA")
keep("rgb_trns.png", save(small, "PNG", transparency=small.getpixel((0, 0))), mode="RGBA")
exif = Image.Exif()
exif[0x0112] = 6
keep("exif_6.png", save(small, "PNG", exif=exif), upright=True)
frames = [small, noise(), ImageOps.mirror(small)]
keep("animated.png", save(small, "PNG", save_all=True, append_images=frames[1:], duration=100))
keep(
    "animated_default.png",
    save(small, "PNG", save_all=True, default_image=True, append_images=frames[1:], duration=100),
)

# Adam7 by hand, since Pillow does not write it: 8-bit RGB.
raw = b""
for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
    for y in range(y0, small.height, dy):
        raw += b"\0" + b"".join(bytes(small.getpixel((x, y))) for x in range(x0, small.width, dx))
keep(
    "interlaced.png",
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", small.width, small.height, 8, 2, 0, 0, 1))
    + chunk(b"IDAT", zlib.compress(raw, 9))
    + chunk(b"IEND", b""),
)

# WebP
keep("lossy.webp", save(picture, "WEBP", quality=85))
keep("lossless.webp", save(small, "WEBP", lossless=True))
keep("lossy_alpha.webp", save(fade, "WEBP", quality=85), mode="RGBA")
keep("lossless_alpha.webp", save(fade, "WEBP", lossless=True, exact=True), mode="RGBA")
keep("animated.webp", save(small, "WEBP", save_all=True, append_images=frames[1:], duration=100, lossless=True))
exif = Image.Exif()
exif[0x0112] = 8
keep("exif_8.webp", save(small, "WEBP", lossless=True, exif=exif), upright=True)

# GIF
keep("still.gif", save(small.quantize(32), "GIF"))
keep("interlaced.gif", save(small.quantize(32), "GIF", interlace=True))
keep("animated.gif", save(frames[0].quantize(32), "GIF", save_all=True, append_images=[f.quantize(32) for f in frames[1:]], duration=100))
clear = small.quantize(32)
keep("transparent.gif", save(clear, "GIF", transparency=clear.getpixel((0, 0))), mode="RGBA")

# BMP
keep("rgb24.bmp", save(small, "BMP"))
keep("palette8.bmp", save(small.quantize(64), "BMP"))
keep("one_bit.bmp", save(one_bit, "BMP"))
keep("gray.bmp", save(small.convert("L"), "BMP"))
