"""Which emoji stand for which policy, by name: harmless stand-ins, everything else safe.

Names are Unicode's short names as the Iconify sets write them, reduced by `key` so that the sets agree.
"""

import re

# The order of the policies, and of every row of labels in this folder.
POLICIES = ["dangerous", "sexual", "violence"]

CONCEPTS = {
    "dangerous": [
        "bomb", "pistol", "kitchen-knife", "dagger", "crossed-swords", "firecracker", "syringe", "pill",
        "cigarette", "radioactive", "biohazard",
    ],
    "sexual": [
        "kiss-mark", "mouth", "kiss", "face-blowing-a-kiss", "bikini", "one-piece-swimsuit", "briefs",
        "no-one-under-eighteen",
    ],
    "violence": [
        "drop-of-blood", "bone", "skull", "skull-and-crossbones", "collision", "oncoming-fist",
        "left-facing-fist", "right-facing-fist", "boxing-glove",
    ],
}

# One emoji under several names: older sets, and Firefox OS, which hyphenates nothing.
SYNONYMS = {
    "waterpistol": "pistol", "hocho": "kitchenknife", "daggerknife": "dagger", "smokingsymbol": "cigarette",
    "lips": "mouth", "lips2": "mouth", "couplekiss": "kiss", "nooneunder18symbol": "nooneundereighteen",
    "blackskullcrossbones": "skullandcrossbones", "fistedhand": "oncomingfist",
}

# Neither one thing nor the other: an axe is a tool, a kissing face without a heart is hard to tell from a
# whistling one. Neither trained on nor measured.
LEFT_OUT = re.compile(
    r"kissing|foxkissing|^kiss(eyes|closedeyes)?$|couplewithheart|coupleheart|^tongue$|lipstick|^axe|bowandarrow"
    r"|boomerang|nosmoking|raisedfist|headbandage|zombie|vampire|coffin|headstone|bandage|xray|anger"
    r"|pirate|atombomb|radioactivewaste|oilspill|blood|anatomicalheart|lungs|brain|fight|bullseye|tombstone"
    r"|^(2|4)$"
)

# What only its colour tells apart from something safe (a drop of blood from a drop of water) is never shown
# in grey or as an outline.
NEEDS_COLOUR = {"dropofblood"}

_TONES = re.compile(r"-(tone\d|(medium-)?(light|dark)(-skin-tone)?|medium(-skin-tone)?|\d)\b")
_KISS = re.compile(r"^kiss-(man|woman|person)")


def key(name):
    """The name that all sets share: skin tones and hyphens dropped, a kissing couple of anybody a kiss."""
    name = _TONES.sub("", name)
    if _KISS.match(name):
        name = "kiss"
    name = name.replace("-", "")
    return SYNONYMS.get(name, name)


def has_tone(name):
    return bool(_TONES.search(name)) and not name[-1].isdigit()


_POLICY_OF = {key(concept): policy for policy, concepts in CONCEPTS.items() for concept in concepts}


def policy_of(art, name):
    """The policy that an emoji of an art set stands for, "safe", or None where it is left out."""
    # Only Firefox OS calls a kissing face "kiss".
    if art == "fxemoji" and name in ("kiss", "kissing"):
        return None
    concept = key(name)
    if concept in _POLICY_OF:
        return _POLICY_OF[concept]
    return None if LEFT_OUT.search(concept) else "safe"
