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


def keep_frames(name, data):
    """All frames as Pillow composes them."""
    (here / name).write_bytes(data)
    with Image.open(io.BytesIO(data)) as image:
        for frame in range(image.n_frames):
            image.seek(frame)
            image.convert("RGBA").save(here / "golden" / f"{name}.{frame}.png", optimize=True)


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

# Animations whose frames are partial, see-through and disposed of in every way the format has. The first
# frame fills the canvas, then come squares, discs and rings, some of them half transparent.
def sprites():
    frames = [fade]
    for i in range(1, 8):
        sprite = Image.new("RGBA", small.size)
        draw = ImageDraw.Draw(sprite)
        colour = ((i * 67) % 256, (i * 101) % 256, (i * 29) % 256, 120 + 15 * i if i % 2 else 255)
        draw.ellipse((i * 4, i * 2, i * 4 + 14, i * 2 + 12), fill=colour)
        draw.rectangle((40 - i * 5, 3, 44 - i * 5, 28), outline=colour)
        frames.append(sprite)
    return frames


# A GIF with a transparent colour in every frame: without one Pillow restores to a background colour, which
# browsers don't.
pieces = []
for i in range(8):
    piece = Image.new("P", small.size, 0 if i else 30)
    piece.putpalette([v for n in range(256) for v in ((n * 37) % 256, (n * 91) % 256, (n * 53) % 256)])
    draw = ImageDraw.Draw(piece)
    draw.ellipse((i * 4, i * 2, i * 4 + 14, i * 2 + 12), fill=40 + i)
    draw.rectangle((40 - i * 5, 3, 44 - i * 5, 28), outline=60 + i)
    draw.rectangle((2, 2, 5, 5), fill=0)
    pieces.append(piece)
keep_frames(
    "disposals.gif",
    save(pieces[0], "GIF", save_all=True, append_images=pieces[1:], transparency=0, optimize=False, duration=[10, 20, 70, 10, 30, 40, 500, 10], disposal=[1, 2, 3, 1, 2, 3, 3, 1]),
)
first, *rest = sprites()


# An APNG by hand, and what it shows: Pillow pastes half-transparent frames where the format says "over".
def animated_png(frames):
    """Frames as (image, (left, top), dispose, blend, delay in ms)."""
    size = frames[0][0].size
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 6, 0, 0, 0))
    out += chunk(b"acTL", struct.pack(">II", len(frames), 0))
    sequence, canvas, shown = 0, Image.new("RGBA", size), []
    for image, place, dispose, blend, delay in frames:
        control = struct.pack(">IIIIIHHBB", sequence, *image.size, *place, delay, 1000, dispose, blend)
        rows = image.tobytes()
        stride = image.width * 4
        data = zlib.compress(b"".join(b"\0" + rows[y * stride : (y + 1) * stride] for y in range(image.height)), 9)
        out += chunk(b"fcTL", control)
        out += chunk(b"fdAT", struct.pack(">I", sequence + 1) + data) if sequence else chunk(b"IDAT", data)
        sequence += 2 if sequence else 1
        before = canvas.copy()
        if blend:
            canvas.alpha_composite(image, place)
        else:
            canvas.paste(image, place)
        shown.append(canvas.copy())
        if dispose == 1:
            canvas.paste((0, 0, 0, 0), (*place, place[0] + image.width, place[1] + image.height))
        elif dispose == 2:
            canvas = before
    return out + chunk(b"IEND", b""), shown


plan = [(0, 0), (1, 1), (2, 1), (0, 1), (2, 0), (1, 1), (0, 0), (0, 1)]
cut = [(first, (0, 0))] + [(sprite.crop((i, 2 * i, 40 + i, 20 + i)), (i, 2 * i)) for i, sprite in enumerate(rest)]
data, shown = animated_png([(image, place, *how, 10 * i + 10) for i, ((image, place), how) in enumerate(zip(cut, plan))])
(here / "disposals.png").write_bytes(data)
for i, canvas in enumerate(shown):
    canvas.save(here / "golden" / f"disposals.png.{i}.png", optimize=True)
keep_frames(
    "disposals.webp",
    save(first, "WEBP", save_all=True, append_images=rest, duration=[10, 20, 70, 10, 30, 40, 500, 10], lossless=True, minimize_size=True, allow_mixed=False),
)
keep_frames(
    "disposals_lossy.webp",
    save(first, "WEBP", save_all=True, append_images=rest, duration=40, quality=70, kmin=0, kmax=0),
)


# 16 bits a sample, which Pillow reads and does not write.
def deep(width, height, channels):
    rng = random.Random(16)
    return [[[(x * 1021 + y * 2039 * (c + 1) + rng.randrange(300)) % 65536 for c in range(channels)] for x in range(width)] for y in range(height)]


def png16(rows, colour):
    raw = b"".join(b"\0" + b"".join(struct.pack(f">{len(p)}H", *p) for p in row) for row in rows)
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


keep("deep.png", png16(deep(40, 24, 3), 2))
keep("deep_alpha.png", png16(deep(40, 24, 4), 6), mode="RGBA")


def tiff(tags, strips, endian="<", tail=b""):
    """One page: tags as (number, type, values), strips of bytes."""
    sizes = {1: "B", 3: "H", 4: "I"}
    tags = sorted(tags + [(273, 4, [0] * len(strips)), (279, 4, [len(s) for s in strips])])
    at = 8 + 2 + 12 * len(tags) + 4
    extra = b""
    offsets = []
    def packed(kind, values):
        return struct.pack(f"{endian}{len(values)}{sizes[kind]}", *values)
    lists = sum(len(packed(k, v)) for _, k, v in tags if len(packed(k, v)) > 4)
    data_at = at + lists
    for strip in strips:
        offsets.append(data_at)
        data_at += len(strip)
    body = struct.pack(f"{endian}H", len(tags))
    for number, kind, values in tags:
        values = offsets if number == 273 else values
        value = packed(kind, values)
        body += struct.pack(f"{endian}HHI", number, kind, len(values))
        if len(value) > 4:
            body += struct.pack(f"{endian}I", at + len(extra))
            extra += value
        else:
            body += value.ljust(4, b"\0")
    body += struct.pack(f"{endian}I", 0)
    order = b"II*\0" if endian == "<" else b"MM\0*"
    return order + struct.pack(f"{endian}I", 8) + body + extra + b"".join(strips) + tail


def tags(width, height, bits, photometric, samples, compression=1, planar=1, rows=None, extra=()):
    return [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * samples), (259, 3, [compression]),
        (262, 3, [photometric]), (277, 3, [samples]), (278, 4, [rows or height]), (284, 3, [planar]), *extra,
    ]


# TIFF
keep("rgb.tif", save(small, "TIFF"))
for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
    keep(f"rgb_{compression.removeprefix('tiff_')}.tif", save(small, "TIFF", compression=compression))
keep("predictor.tif", save(small, "TIFF", compression="tiff_lzw", tiffinfo={317: 2}))
keep("gray.tif", save(small.convert("L"), "TIFF", compression="tiff_lzw"))
keep("gray_alpha.tif", save(fade.convert("LA"), "TIFF"), mode="RGBA")
keep("rgba.tif", save(fade, "TIFF", compression="tiff_lzw"), mode="RGBA")
keep("one_bit.tif", save(one_bit, "TIFF"))
keep("palette.tif", save(small.quantize(16), "TIFF", compression="packbits"))
keep("cmyk.tif", save(small.convert("CMYK"), "TIFF", compression="tiff_lzw"))
keep("exif_6.tif", save(small, "TIFF", tiffinfo={274: 6}), upright=True)
keep("pages.tif", save(small, "TIFF", save_all=True, append_images=[noise(), noise(), small.convert("L").resize((20, 30))]))
wide, high = small.size
planes = [bytes(small.getchannel(c).tobytes()) for c in "RGB"]
keep("planar.tif", tiff(tags(wide, high, 8, 2, 3, planar=2), planes))
rows = deep(40, 24, 3)
for endian, name in (("<", "deep"), (">", "deep_big_endian")):
    flat = b"".join(struct.pack(f"{endian}3H", *p) for row in rows for p in row)
    keep(f"{name}.tif", tiff(tags(40, 24, 16, 2, 3, rows=10), [flat[:2400], flat[2400:4800], flat[4800:]], endian))
white = bytes(255 - v for v in small.convert("L").tobytes())
keep("white_is_zero.tif", tiff(tags(wide, high, 8, 0, 1), [white]))
premultiplied = b"".join(bytes([(c * a + 127) // 255 for c in (r, g, b)] + [a]) for r, g, b, a in fade.get_flattened_data())
keep("premultiplied.tif", tiff(tags(wide, high, 8, 2, 4, extra=[(338, 3, [1])]), [premultiplied]), mode="RGBA")
tiles = []
for top in range(0, high, 16):
    for left in range(0, wide, 32):
        tiles.append(small.crop((left, top, left + 32, top + 16)).tobytes())
tiled = [t for t in tags(wide, high, 8, 2, 3) if t[0] != 278] + [(322, 3, [32]), (323, 3, [16])]
strips = tiff(tiled, tiles)
# The same with the fields for tiles.
number = lambda n: struct.pack("<H", n)
strips = strips.replace(number(273) + number(4), number(324) + number(4), 1).replace(number(279) + number(4), number(325) + number(4), 1)
keep("tiles.tif", strips)
