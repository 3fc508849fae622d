"""The emoji of some art sets, drawn, with what each stands for."""

from dataclasses import dataclass

import cv2
import numpy as np

import art
import categories

# Many and alike, so each is chosen less often.
FLAGS = ("flag", "clock", "keycap")


@dataclass
class Palette:
    """What `of` gives, one row an emoji."""

    pictures: np.ndarray
    outlines: np.ndarray
    needs_colour: np.ndarray
    # An index into `concepts`, which are the keys of categories.
    concept: np.ndarray
    concepts: list
    # By policy and "safe": the groups to choose from first, then the members of each.
    groups: dict
    # The chances of the safe groups, summed up.
    chances: np.ndarray


def outline(picture):
    """The edges of a drawing and of its colours, 0 to 255: what a line drawing of it would ink."""
    alpha = picture[..., 3].astype(np.float32) / 255
    flat = picture[..., :3].astype(np.float32) * alpha[..., None] + 255 * (1 - alpha[..., None])
    flat = cv2.GaussianBlur(flat, (0, 0), 1.0)
    steep = np.zeros(alpha.shape, np.float32)
    for plane in [*np.moveaxis(flat, -1, 0), alpha * 255]:
        steep = np.maximum(steep, np.hypot(cv2.Sobel(plane, cv2.CV_32F, 1, 0), cv2.Sobel(plane, cv2.CV_32F, 0, 1)))
    ink = cv2.dilate((steep > 110).astype(np.uint8) * 255, np.ones((3, 3), np.uint8))
    return cv2.GaussianBlur(ink, (0, 0), 0.6)


def of(sets, cache, concepts=None, standard_only=False):
    """The palette of the sets named; `concepts` fixes the numbering of another palette's.

    With `standard_only`, emoji that no set of that numbering knows are left out (OpenMoji has thousands of its
    own).
    """
    arrays, keys, policies, arts = [], [], [], []
    known = set(concepts or [])
    for name in sets:
        icons, drawn = art.glyphs(name, cache)
        kept = [at for at, icon in enumerate(icons) if not standard_only or categories.key(icon) in known]
        arrays.append(drawn[kept])
        keys += [categories.key(icons[at]) for at in kept]
        policies += [categories.policy_of(name, icons[at]) for at in kept]
        arts += [name] * len(kept)
    pictures = np.concatenate(arrays)
    concepts = concepts or sorted(set(keys))
    number = {concept: at for at, concept in enumerate(concepts)}
    groups = {}
    for at, (concept, policy, name) in enumerate(zip(keys, policies, arts)):
        # Stand-ins evenly by emoji and then by set; skin tones share their emoji's chance.
        groups.setdefault(policy, {}).setdefault(concept, {}).setdefault(name, []).append(at)
    groups = {
        policy: [[members for members in by_set.values()] for by_set in by_concept.values()]
        for policy, by_concept in groups.items()
    }
    safe = dict.fromkeys(key for key, policy in zip(keys, policies) if policy == "safe")
    weights = np.array([0.15 if key.startswith(FLAGS) else 1.0 for key in safe])
    return Palette(
        pictures=pictures,
        outlines=np.stack([outline(picture) for picture in pictures]),
        needs_colour=np.array([key in categories.NEEDS_COLOUR for key in keys]),
        concept=np.array([number.get(key, -1) for key in keys]),
        concepts=concepts,
        groups=groups,
        chances=np.cumsum(weights / weights.sum()),
    )
