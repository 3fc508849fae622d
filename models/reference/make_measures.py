"""Golden values of measures: scikit-learn's and scipy's on scores that anybody can make.

    python3 -m venv VENV && VENV/bin/pip install scikit-learn==1.9.1
    VENV/bin/python models/reference/make_measures.py models/tests/measures/golden.json

The bootstrap is drawn with the generator that Rust draws with (SplitMix64), so that intervals can be compared
to the last digit; each sample is measured by scikit-learn.
"""

import json
import sys

import numpy as np
import sklearn
from scipy.stats import binomtest
from sklearn import metrics
from sklearn.calibration import calibration_curve

ROWS, SAMPLES, SEED = 300, 200, 1
MASK = (1 << 64) - 1


class Seeded:
    def __init__(self, seed):
        self.state = seed

    def below(self, end):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        mixed = ((self.state ^ (self.state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
        return ((mixed ^ (mixed >> 31)) * end) >> 64


def scores(steps, turn):
    """Positives lie higher on the whole; of `steps` different values, so with ties where those are few."""
    row = np.arange(ROWS)
    positive = row % 5 == 0
    noise = (row * 7919 * turn + row * row * 31) % 1009 / 1009
    raw = 0.75 * noise + 0.25 * positive
    # Between the edges of ten bins, on which side of which libraries differ.
    return positive, (np.floor(raw * steps) + 0.5) / (steps + 0.25)


def draws(positive):
    seeded = Seeded(SEED)
    strata = [np.flatnonzero(positive), np.flatnonzero(~positive)]
    for _ in range(SAMPLES):
        yield np.array([rows[seeded.below(len(rows))] for rows in strata for _ in rows])


def interval(values):
    return list(np.percentile(values, [2.5, 97.5]))


def case(steps):
    positive, p = scores(steps, 1)
    _, other = scores(steps, 3)
    ap, auc = metrics.average_precision_score, metrics.roc_auc_score
    thresholds = []
    for threshold in [0.3, 0.5, float(p[7]), 0.99]:
        flagged = p >= threshold
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            positive, flagged, average="binary", zero_division=0
        )
        wilson = lambda of, all: list(binomtest(int(of), int(all)).proportion_ci(method="wilson")) if all else None
        thresholds.append({
            "threshold": threshold,
            "counts": [int(x) for x in metrics.confusion_matrix(positive, flagged).ravel()],
            "precision": precision if flagged.any() else None,
            "recall": recall,
            "f1": f1,
            "precision_interval": wilson((flagged & positive).sum(), flagged.sum()),
            "recall_interval": wilson((flagged & positive).sum(), positive.sum()),
            "f1_interval": interval([metrics.f1_score(positive[d], flagged[d], zero_division=0) for d in draws(positive)]),
        })
    precisions, recalls, cuts = metrics.precision_recall_curve(positive, p)
    f1s = 2 * precisions * recalls / np.maximum(precisions + recalls, 1e-300)
    best = max(range(len(cuts)), key=lambda at: (round(f1s[at], 12), cuts[at]))
    apart = [[ap(positive[d], p[d]) - ap(positive[d], other[d]), auc(positive[d], p[d]) - auc(positive[d], other[d])]
             for d in draws(positive)]
    observed, mean = calibration_curve(positive, p, n_bins=10)
    bins = np.floor(p * 10).astype(int)
    counts = [int((bins == at).sum()) for at in range(10)]
    ece = sum(n * abs(m - o) for n, m, o in zip([n for n in counts if n], mean, observed)) / ROWS
    return {
        "steps": steps,
        "average_precision": ap(positive, p),
        "roc": auc(positive, p),
        "average_precision_interval": interval([ap(positive[d], p[d]) for d in draws(positive)]),
        "roc_interval": interval([auc(positive[d], p[d]) for d in draws(positive)]),
        "thresholds": thresholds,
        "best": {"threshold": float(cuts[best]), "f1": float(f1s[best])},
        "difference": {
            "by": [ap(positive, p) - ap(positive, other), auc(positive, p) - auc(positive, other)],
            "intervals": [interval([a[at] for a in apart]) for at in (0, 1)],
            "better": [float(np.mean([a[at] > 0 for a in apart])) for at in (0, 1)],
        },
        "bins": {"rows": counts, "mean": list(mean), "observed": list(observed)},
        "expected_error": ece,
        "brier": metrics.brier_score_loss(positive, p),
    }


def main():
    golden = {"scikit-learn": sklearn.__version__, "rows": ROWS, "samples": SAMPLES, "seed": SEED,
              "cases": [case(steps) for steps in (9, 100_003)]}
    with open(sys.argv[1], "w") as file:
        json.dump(golden, file)
        file.write("\n")


main()
