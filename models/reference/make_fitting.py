"""Golden values of fits: scikit-learn's logistic regression and Platt scaling on numbers that anybody can make.

    python3 -m venv VENV && VENV/bin/pip install scikit-learn==1.9.1
    VENV/bin/python models/reference/make_fitting.py models/tests/fitting/golden.json
"""

import json
import sys

import numpy as np
import sklearn
from scipy.optimize import minimize
from sklearn.calibration import _SigmoidCalibration
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

ROWS, COLUMNS = 80, 11


def features():
    """Column 3 is constant, column 5 lies far from zero, column 7 is tiny; the test makes the same numbers."""
    numbers = np.empty((ROWS, COLUMNS), dtype=np.float32)
    for row in range(ROWS):
        for column in range(COLUMNS):
            number = ((row * 7919 + column * 104729 + row * row * column * 31) % 1009) / 1009
            number = {3: 0.25, 5: 4096 + number, 7: number * 1e-6}.get(column, number)
            numbers[row, column] = np.float32(number)
    return numbers


def labels(x):
    """What column 0 and 1 say, but for every seventh row."""
    said = x[:, 0] + x[:, 1] > 1.2
    return said ^ (np.arange(ROWS) % 7 == 0)


def fit(x, y, c, class_weight=None, sample_weight=None, beside=None):
    scaler = StandardScaler().fit(x.astype(np.float64))
    scaled = scaler.transform(x.astype(np.float64))
    if beside is not None:
        scaled = np.hstack([scaled, beside[:, None]])
    model = LogisticRegression(C=c, class_weight=class_weight, solver="newton-cholesky", tol=1e-13, max_iter=1000)
    model.fit(scaled, y, sample_weight=sample_weight)
    weights, extra = model.coef_[0][:COLUMNS], model.coef_[0][COLUMNS:]
    folded = weights / scaler.scale_
    bias = model.intercept_[0] - folded @ scaler.mean_
    logits = x.astype(np.float64) @ folded + bias
    return {
        "c": c,
        "balanced": class_weight == "balanced",
        "row_weights": None if sample_weight is None else list(sample_weight),
        "beside": None if beside is None else list(beside),
        "weights": list(folded),
        "bias": bias,
        "weight_beside": float(extra[0]) if len(extra) else 0.0,
        "logits": list(logits),
    }


def platt(logits, y):
    """scikit-learn's own, and the same loss minimised to the last digit (its stops at 1e-6 or so)."""
    own = _SigmoidCalibration().fit(logits, y)
    positives, negatives = y.sum(), (~y).sum()
    target = np.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(at):
        made = at[0] * logits + at[1]
        p = 1 / (1 + np.exp(-made))
        return np.sum(np.logaddexp(0, made) - target * made), np.array([(p - target) @ logits, np.sum(p - target)])

    best = minimize(loss, [1.0, 0.0], jac=True, method="BFGS", options={"gtol": 1e-10}).x
    assert np.allclose(best, [-own.a_, -own.b_], atol=1e-3), (best, own.a_, own.b_)
    return {"logits": list(logits), "scale": best[0], "offset": best[1]}


def main():
    x = features()
    y = labels(x)
    beside = ((np.arange(ROWS) * 37) % 101) / 101 * 4 - 2
    row_weights = 0.25 + (np.arange(ROWS) % 4) / 2
    fits = [
        fit(x, y, 0.002),
        fit(x, y, 1.0),
        fit(x, y, 100.0),
        fit(x, y, 0.1, class_weight="balanced"),
        fit(x, y, 0.1, sample_weight=row_weights),
        fit(x, y, 0.05, beside=beside),
    ]
    golden = {
        "scikit-learn": sklearn.__version__,
        "labels": [bool(label) for label in y],
        "fits": fits,
        "platt": [platt(np.array(one["logits"]), y) for one in fits[:2]],
    }
    with open(sys.argv[1], "w") as file:
        json.dump(golden, file)
        file.write("\n")


main()
