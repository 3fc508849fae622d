"""Composes the pictures: emoji on varied backgrounds, and photographs and gradients without any.

Everything follows from the seed. A picture's label says for each policy whether one of its stand-ins is in it.
"""

import cv2
import numpy as np

import art
import categories
import palettes
import photographs

# Pixels a side, the model's own.
SIDE = 112
SAFE = len(categories.POLICIES)
# Image tokens a side; where things are is told at this resolution, in one channel a policy and one for any emoji.
GRID = 4
# What a picture shows: a stand-in for each policy, a safe emoji, a stand-in for two policies, or none.
SHARES = {"dangerous": 0.155, "sexual": 0.155, "violence": 0.155, "safe": 0.25, "two": 0.035, "none": 0.25}
# Of the emoji trained on, how many look as their set drew them; the others are restyled.
PLAIN = 0.35


def halved(picture, times):
    for _ in range(times):
        picture = cv2.resize(picture, (picture.shape[1] // 2, picture.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return picture


def premultiplied(picture):
    """float32, the colours times alpha."""
    picture = picture.astype(np.float32)
    picture[..., :3] *= picture[..., 3:] / 255
    return picture


class Composer:
    """An endless, seeded source of pictures."""

    def __init__(self, palette, photos, seed, shares=SHARES, plain=0.0, cutouts=(), varied=False):
        """`plain` is the share of the emoji that look as their set drew them.

        With `varied`, photographs and cut-outs are turned and change their colours now and then: there are few.
        """
        self.plain = plain
        self.varied = varied
        # From 1, big plain emoji on simple ground, to 0, everything: the beginning of training is easier.
        self.ease = 0.0
        self.palette = palette
        self.photos = photos
        # Photographs of things without their ground, `uint8 [art.SIDE, art.SIDE, 4]` each.
        self.cutouts = cutouts
        self.random = np.random.default_rng(seed)
        self.kinds = list(shares)
        self.shares = np.cumsum(list(shares.values()))

    def picture(self):
        """`(uint8 [SIDE, SIDE, 3], bool [policies], concept or -1, float32 [GRID, GRID, policies + 1])`."""
        random, labels = self.random, np.zeros(SAFE, bool)
        where = np.zeros((GRID, GRID, SAFE + 1), np.float32)
        kind = self.kinds[int(np.searchsorted(self.shares, random.random() * self.shares[-1]))]
        if kind == "none" and random.random() < 0.7 * self.ease:
            kind = self.one_of((*categories.POLICIES, "safe"))
        concept, grey = -1, True
        if kind == "none":
            canvas = self.without_emoji()
        else:
            canvas = self.background(0.45 * (1 - 0.7 * self.ease))
            count = 0 if random.random() < self.ease else self.one_of((0, 0, 0, 0, 0, 1, 1, 1, 2, 2))
            for _ in range(count):
                if len(self.cutouts) and random.random() < 0.15:
                    self.place(canvas, self.cutout(), random.uniform(0.15, 0.4), anywhere=True)
                    continue
                cover = self.place(canvas, self.drawing(self.pick("safe")), random.uniform(0.12, 0.3), anywhere=True)
                where[..., SAFE] = np.maximum(where[..., SAFE], cover)
            if kind == "two":
                shown = [int(policy) for policy in random.choice(SAFE, 2, replace=False)]
                places = self.one_of((((0.3, 0.7), (0.7, 0.3)), ((0.3, 0.3), (0.7, 0.7))))
                mains = [(policy, random.uniform(0.35, 0.55), centre) for policy, centre in zip(shown, places)]
            else:
                policy = SAFE if kind == "safe" else categories.POLICIES.index(kind)
                mains = [(policy, random.uniform(0.42 + 0.25 * self.ease, 0.95), None)]
            for policy, size, centre in mains:
                glyph = self.pick("safe" if policy == SAFE else categories.POLICIES[policy])
                grey &= not self.palette.needs_colour[glyph]
                cover = self.place(canvas, self.drawing(glyph), size, centre)
                for channel in {policy, SAFE}:
                    where[..., channel] = np.maximum(where[..., channel], cover)
                if policy != SAFE:
                    labels[policy] = True
            if kind != "two":
                concept = int(self.palette.concept[glyph])
        return self.photographed(canvas, grey), labels, concept, where

    def batch(self, size):
        """`(uint8 [size, 3, SIDE, SIDE], float32 [size, policies], int64 [size], float32 [size, tokens, policies + 1])`."""
        pictures, labels, concepts, where = zip(*(self.picture() for _ in range(size)))
        return (
            np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2)),
            np.stack(labels).astype(np.float32),
            np.array(concepts, np.int64),
            np.stack(where).reshape(size, GRID * GRID, SAFE + 1),
        )

    def pick(self, policy):
        groups = self.palette.groups[policy]
        if policy == "safe":
            by_set = groups[min(int(np.searchsorted(self.palette.chances, self.random.random())), len(groups) - 1)]
        else:
            by_set = groups[self.random.integers(len(groups))]
        members = by_set[self.random.integers(len(by_set))]
        return members[self.random.integers(len(members))]

    def one_of(self, values):
        return values[self.random.integers(len(values))]

    def colour(self):
        return self.random.integers(0, 256, 3).astype(np.float32)

    def without_emoji(self):
        """A photograph, things cut out of photographs on any ground, or a background alone."""
        random = self.random
        way = random.random()
        if way < 0.17:
            return self.background(0.0)
        if way < 0.55 and len(self.cutouts):
            canvas = np.full((SIDE, SIDE, 3), 255, np.float32) if random.random() < 0.4 else self.background(0.2)
            for _ in range(self.one_of((1, 1, 1, 1, 2, 3))):
                self.place(canvas, self.cutout(), random.uniform(0.35, 1.0))
            return canvas
        return self.photograph(0.25)

    def background(self, photo):
        """A new float32 canvas; a photograph with chance `photo`, else solid, gradient, noise or shapes."""
        random = self.random
        if random.random() < photo:
            return self.photograph(0.5)
        way = random.random()
        if way < 0.40:
            pale = random.random()
            colour = np.float32([255] * 3) if pale < 0.35 else self.colour()
            return np.tile(colour, (SIDE, SIDE, 1))
        if way < 0.75:
            corners = np.stack([self.colour() for _ in range(4)]).reshape(2, 2, 3)
            if random.random() < 0.5:
                corners[:, 1] = corners[:, 0]
            return cv2.resize(corners, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        if way < 0.9:
            cells = self.one_of((4, 8, 16, 112))
            noise = random.uniform(0, 255, (cells, cells, 3)).astype(np.float32)
            if random.random() < 0.5:
                noise = self.colour() + (noise - 128) * random.uniform(0.1, 0.6)
            return np.clip(cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), 0, 255)
        canvas = np.tile(self.colour(), (SIDE, SIDE, 1))
        for _ in range(random.integers(1, 7)):
            colour = self.colour().tolist()
            a, b = random.integers(0, SIDE, 2).tolist(), random.integers(0, SIDE, 2).tolist()
            if random.random() < 0.5:
                cv2.rectangle(canvas, a, b, colour, -1 if random.random() < 0.7 else int(random.integers(1, 6)))
            else:
                cv2.circle(canvas, a, int(random.integers(3, 50)), colour, -1 if random.random() < 0.7 else int(random.integers(1, 6)))
        return canvas

    def photograph(self, crop_min):
        """A crop of at least `crop_min` of the shorter side of a photograph, its aspect a little changed."""
        random = self.random
        pixels = self.photos[random.integers(len(self.photos))]
        height, width = pixels.shape[:2]
        if random.random() < 0.3:
            # Whole, squashed as the model's own preprocessing does it.
            crop = pixels
        else:
            side = min(height, width) * random.uniform(crop_min, 1.0)
            h, w = (max(16, int(min(length, side * random.uniform(0.8, 1.25)))) for length in (height, width))
            y, x = random.integers(0, height - h + 1), random.integers(0, width - w + 1)
            crop = pixels[y : y + h, x : x + w]
        shrinks = crop.shape[0] > SIDE and crop.shape[1] > SIDE
        canvas = cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        if random.random() < 0.5:
            canvas = canvas[:, ::-1]
        return self.variation(canvas).astype(np.float32)

    def variation(self, picture):
        """With its colour channels exchanged, or a quarter or half turned, each only sometimes."""
        random = self.random
        if self.varied and random.random() < 0.35:
            picture = picture[..., [*random.permutation(3), *range(3, picture.shape[-1])]]
        if self.varied and random.random() < 0.25:
            picture = np.rot90(picture, random.integers(1, 4))
        return np.ascontiguousarray(picture)

    def drawing(self, glyph):
        """An emoji's picture at a size, for `place`."""

        def at(halvings):
            picture, ink = (halved(of[glyph], halvings) for of in (self.palette.pictures, self.palette.outlines))
            return self.styled(glyph, picture, ink)

        return at

    def cutout(self):
        """The picture at a size, for `place`, of something cut out of a photograph."""
        picture = self.variation(self.one_of(self.cutouts))
        return lambda halvings: premultiplied(halved(picture, halvings))

    def place(self, canvas, picture_at, size, centre=None, anywhere=False):
        """Paints what `drawing` or `cutout` gave, its longer side about `size` of the picture's; returns how much
        it is of each cell.

        Half a cell counts as all of it.
        """
        random = self.random
        side = size * SIDE
        scale = side / art.FILLED
        # Halved first where it shrinks a lot, for a bilinear look at every pixel.
        halvings = 0
        while scale < 0.6:
            halvings += 1
            scale *= 2
        picture = picture_at(halvings)
        if anywhere:
            x, y = random.uniform(0, SIDE, 2)
        elif centre is None:
            # Mostly inside; a little of it may be cut off.
            slack = max(0.0, SIDE - side) / 2 + 0.08 * SIDE
            x, y = SIDE / 2 + random.uniform(-slack, slack, 2)
        else:
            x, y = (np.array(centre) + random.uniform(-0.06, 0.06, 2)) * SIDE
        angle = np.deg2rad(random.uniform(-25, 25) if random.random() < 0.8 else 0.0)
        stretch = random.uniform(0.9, 1.1)
        flip = -1.0 if random.random() < 0.5 else 1.0
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turn = turn @ np.diag([flip * scale * stretch, scale / stretch])
        middle = (picture.shape[0] - 1) / 2
        shift = np.array([x, y]) - turn @ np.array([middle, middle])
        matrix = np.hstack([turn, shift[:, None]]).astype(np.float32)
        warped = cv2.warpAffine(picture, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
        alpha = warped[..., 3:] * np.float32(1 / 255)
        canvas *= 1 - alpha
        canvas += warped[..., :3]
        return np.minimum(1.0, 2 * cv2.resize(alpha, (GRID, GRID), interpolation=cv2.INTER_AREA))

    def styled(self, glyph, picture, ink):
        """float32, alpha premultiplied: as it is or recoloured, and sometimes redrawn in lines or in grey."""
        random, palette = self.random, self.palette
        if random.random() < max(self.plain, 0.8 * self.ease):
            return premultiplied(picture)
        picture = picture.astype(np.float32)
        colours, alpha = picture[..., :3], picture[..., 3:] / 255
        if random.random() < 0.45:
            # Brightness, contrast and saturation, and a small turn of the hue.
            gain, shift = random.uniform(0.65, 1.3), random.uniform(-30, 30)
            colours = (colours - 128) * gain + 128 + shift
            mean = colours.mean(axis=-1, keepdims=True)
            colours = mean + (colours - mean) * random.uniform(0.4, 1.4)
            colours = np.clip(colours * random.uniform(0.9, 1.1, 3).astype(np.float32), 0, 255)
        if random.random() < 0.22:
            # Lines over flattened colours, as drawn with a pen.
            strength = random.uniform(0.6, 1.0)
            levels = self.one_of((64.0, 96.0, 128.0))
            colours = np.round(colours / levels) * levels
            colours = colours + (255 - colours) * self.one_of((0.0, 0.0, 0.2, 0.5))
            if not palette.needs_colour[glyph] and random.random() < 0.2:
                colours = np.full_like(colours, 255)
                if random.random() < 0.4:
                    alpha = alpha * self.one_of((0.0, 0.6))
            line = self.colour() * 0.3 if random.random() < 0.3 else np.float32([20, 20, 20])
            cover = ink[..., None] * np.float32(strength / 255)
            colours = colours * (1 - cover) + line * cover
            alpha = np.maximum(alpha, cover)
        elif not palette.needs_colour[glyph] and random.random() < 0.08:
            colours = np.repeat(colours.mean(axis=-1, keepdims=True), 3, axis=-1)
        colours = np.clip(colours, 0, 255)
        return np.concatenate([colours * alpha, alpha * 255], axis=-1).astype(np.float32)

    def photographed(self, canvas, grey):
        """uint8: light, blur, noise and JPEG over the whole picture, each only sometimes."""
        random = self.random
        if random.random() < 0.4:
            canvas = (canvas - 128) * random.uniform(0.7, 1.2) + 128 + random.uniform(-30, 30)
        if grey and random.random() < 0.05:
            canvas = np.repeat(canvas.mean(axis=-1, keepdims=True), 3, axis=-1)
        if random.random() < 0.15:
            canvas = cv2.GaussianBlur(canvas, (0, 0), random.uniform(0.4, 1.2))
        if random.random() < 0.1:
            canvas = canvas + random.standard_normal(canvas.shape, np.float32) * random.uniform(2, 12)
        pixels = np.clip(canvas, 0, 255).astype(np.uint8)
        if random.random() < 0.15:
            coded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(35, 95))])[1]
            pixels = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        return pixels


def trained(cache):
    """The palette, the photographs and the cut-outs that a model is trained on."""
    photos = [pixels for _, pixels in photographs.photographs("train", cache)]
    return palettes.of(art.TRAINED, cache), photos, photographs.cutouts("train", cache)
