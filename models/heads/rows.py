#!/usr/bin/env python3
"""Writes the rows that the shipped heads are fitted on.

    rows.py MODERATION.jsonl ORDINARY.jsonl OUT.jsonl

MODERATION.jsonl has rows of the OpenAI moderation evaluation release, {"text", "labels"}; those that are held out for
judging the heads (SHA-256 of the text, modulo 5, below 2) are dropped wherever they come from. ORDINARY.jsonl is what
ordinary.py wrote: 1 000 texts of its part `train`, as many of each kind and language as there are, harmless in every
way. The same inputs give the same bytes.
"""

import collections
import hashlib
import json
import random
import sys

ORDINARY = 1000


def held_out(text):
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % 5 < 2


def ordinary(path):
    groups = collections.defaultdict(list)
    with open(path, encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["part"] == "train":
                groups[row["kind"], row["language"]].append(row["text"])
    rng = random.Random(1)
    for texts in groups.values():
        rng.shuffle(texts)
    chosen = []
    while len(chosen) < ORDINARY and any(groups.values()):
        for key in sorted(groups):
            if groups[key]:
                chosen.append(groups[key].pop())
    return chosen[:ORDINARY]


def main(argv):
    if len(argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    moderation, ordinary_texts, out = argv[1:]
    with open(moderation, encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if not held_out(row["text"])]
    rows += [{"text": text, "labels": {"safe": 1}} for text in ordinary(ordinary_texts)]
    with open(out, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{len(rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
