#!/usr/bin/env python3
"""Posts pictures and texts to a running shieldgate and prints the verdicts as a table.

    show.py BASE_URL KEY [FILE …]      (without files: the samples beside this script)

A file that ends in .jsonl has texts, a line each: {"name": …, "text": …}.
"""

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
}
# A first picture on a slow machine may wait for others.
TIMEOUT_S = 120


TEXTS = ".jsonl"


def main(argv):
    if len(argv) < 3:
        print("usage: show.py BASE_URL KEY [FILE …]", file=sys.stderr)
        return 2
    files = [Path(name) for name in argv[3:]] or samples()
    failures = show(argv[1].rstrip("/"), argv[2], files)
    return 1 if failures else 0


def samples():
    """The photographs, then the drawings that the demo model is for, then texts."""
    here = Path(__file__).resolve().parent
    folders = [folder for folder in (here, here / "demo") if folder.is_dir()]
    pictures = [path for folder in folders for path in sorted(folder.iterdir()) if path.suffix in TYPES]
    return [*pictures, here / "texts.jsonl"]


def show(base, key, files):
    """Prints one block of rows a picture or text; returns how many of them got no verdict."""
    rows, not_run, failures = [], {}, 0
    asked = [request for path in files for request in requests(base, key, path)]
    for name, request in asked:
        try:
            verdict = post(request)
        except Refused as refused:
            failures += 1
            rows.append([name, "-", "-", "-", "-", str(refused)])
            continue
        rows.extend(rows_of(name, verdict))
        for policy in verdict.get("policies_not_run", []):
            not_run.setdefault((policy["policy"], policy["reason"]), []).append(name)
        for policy in verdict.get("policies", []):
            for judge in policy.get("judges_not_run", []):
                of_judge = f"{policy['policy']} ({judge['name']})"
                not_run.setdefault((of_judge, judge["reason"]), []).append(name)
    print(table(["content", "verdict", "policy", "action", "probability", "judge"], rows))
    if not_run:
        print("\nNot run:")
        for (policy, reason), names in not_run.items():
            where = "" if len(names) == len(asked) else f" ({', '.join(names)})"
            print(f"  {policy}: {reason}{where}")
    return failures


def requests(base, key, path):
    """A name and a request for the picture, or for each text of the file."""
    if path.suffix.lower() == TEXTS:
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            body = json.dumps({"text": row["text"], "ref": row["name"]}).encode()
            yield f"“{row['text'][:24]}…”", request(f"{base}/v1/texts", key, body, "application/json")
        return
    ref = urllib.request.quote(path.name, safe="")
    kind = TYPES.get(path.suffix.lower(), "application/octet-stream")
    yield path.name, request(f"{base}/v1/images?ref={ref}", key, path.read_bytes(), kind)


def request(url, key, body, kind):
    return urllib.request.Request(url, body, {"Authorization": f"Bearer {key}", "Content-Type": kind})


class Refused(Exception):
    """The service's own words for why there is no verdict."""


def post(request):
    # The service is on this machine: a proxy named in the environment must not see the key.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise Refused(f"{error.code}: {detail_of(error)}") from error
    except (OSError, ValueError) as error:
        raise Refused(f"no answer: {error}") from error


def detail_of(error):
    try:
        problem = json.load(error)
        return problem.get("detail") or problem.get("title") or error.reason
    except (OSError, ValueError, AttributeError):
        return error.reason


def rows_of(name, verdict):
    rows = []
    action = verdict["action"] + (" (recalled)" if verdict.get("cached") else "")
    for policy in verdict.get("policies", []):
        judges = policy.get("judges") or []
        if not judges:
            why = (policy.get("error") or {}).get("code") or policy["outcome"]
            rows.append([policy["policy"], policy["action"], number(policy.get("probability")), why])
        for judge in judges:
            note = " (demo)" if judge.get("demo") else ""
            if judge.get("error"):
                note += f": {judge['error'].get('code')}"
            rows.append([policy["policy"], judge.get("action") or "-", number(judge.get("probability")), judge["name"] + note])
    rows = rows or [["-", "-", "-", "-"]]
    # The content and its verdict stand on the first row only.
    return [([name, action] if index == 0 else ["", ""]) + row for index, row in enumerate(rows)]


def number(probability):
    return "-" if probability is None else f"{probability:.4f}"


def table(head, rows):
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
