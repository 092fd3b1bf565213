"""Agreement of a partition with known classes: for reports, never for training or selection."""

from typing import Any

import numpy as np

from jdec._checks import check_same_length
from jdec._rows import as_labels


def clustering_accuracy(labels_true: Any, labels_pred: Any) -> float:
    r"""Unsupervised clustering accuracy: the share of rows right under the best matching.

    .. math:: \mathrm{ACC} = \max_m \frac{1}{N} \sum_i 1\{l_i = m(c_i)\}

    m runs over all one-to-one mappings of clusters to classes; the Hungarian algorithm finds the
    best. Labels can have any values; clusters beyond the number of classes stay unmatched.

    Args:
        labels_true: Classes l, [N], any values that NumPy can sort.
        labels_pred: Clusters c, [N].

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: If an argument is not one-dimensional, is empty, misses a label or mixes kinds
            of labels, or the lengths differ.

    Examples:
        >>> clustering_accuracy([0, 0, 1, 1], [7, 7, -1, -1])
        1.0
        >>> clustering_accuracy([0, 0, 1, 1], [0, 0, 0, 0])
        0.5

    Source: Xie et al. 2016, Eq. 10.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and not part of a fit

    labels_true, labels_pred = _as_labels(labels_true, labels_pred)
    counts = np.zeros((labels_true.max() + 1, labels_pred.max() + 1), np.int64)
    np.add.at(counts, (labels_true, labels_pred), 1)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(counts[rows, columns].sum() / len(labels_true))


def clustering_scores(labels_true: Any, labels_pred: Any) -> dict[str, float]:
    """ACC, NMI (arithmetic mean) and ARI of a partition against known classes.

    Args:
        labels_true: Classes, [N].
        labels_pred: Clusters, [N].

    Returns:
        ``{"acc": …, "nmi": …, "ari": …}``.

    Raises:
        ValueError: As :func:`clustering_accuracy`.

    Examples:
        >>> clustering_scores([0, 0, 1, 1], [1, 1, 0, 0])
        {'acc': 1.0, 'nmi': 1.0, 'ari': 1.0}
    """
    # scikit-learn imports pandas, which takes seconds.
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    labels_true, labels_pred = _as_labels(labels_true, labels_pred)
    return {
        "acc": clustering_accuracy(labels_true, labels_pred),
        "nmi": float(normalized_mutual_info_score(labels_true, labels_pred)),
        "ari": float(adjusted_rand_score(labels_true, labels_pred)),
    }


def _as_labels(labels_true: Any, labels_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    labels_true = as_labels("labels_true", labels_true)
    labels_pred = as_labels("labels_pred", labels_pred)
    check_same_length("labels_pred", labels_pred, "labels_true", labels_true)
    if len(labels_true) == 0:
        raise ValueError("labels_true: expected at least one label, got none")
    # As numbers, since scikit-learn accepts neither bytes nor fractions.
    labels_true, labels_pred = (
        np.unique(labels, return_inverse=True)[1] for labels in (labels_true, labels_pred)
    )
    return labels_true, labels_pred
