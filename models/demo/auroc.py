"""The area under the ROC curve, ties counted half."""

import numpy as np


def auroc(scores, positive):
    """The chance that a positive one scores above a negative one."""
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    values, rank = np.unique(scores, return_inverse=True)
    above = np.bincount(rank, positive, len(values))
    below = np.bincount(rank, ~positive, len(values))
    beaten = np.cumsum(below) - below / 2
    return float((above * beaten).sum() / (above.sum() * below.sum()))
