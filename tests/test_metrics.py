import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from jdec import clustering_accuracy
from jdec.metrics import clustering_scores

PAIRS = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize(
    ("labels", "accuracy"),
    [
        ([1, 1, 2, 2, 3, 3, 4, 4, 0, 0], 1),
        (list(range(10)), 0.5),
        ([0] * 10, 0.2),
        ([0, 0, 0, 0, 2, 2, 3, 3, 4, -1], 0.7),
    ],
)
def test_accuracy_by_hand(labels, accuracy):
    assert clustering_accuracy(PAIRS, labels) == pytest.approx(accuracy)


labellings = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(-1, 2), min_size=n, max_size=n),
        st.lists(st.integers(-2, 1), min_size=n, max_size=n),
    )
)


@given(labellings)
def test_accuracy_is_the_best_of_all_mappings(labels):
    assert clustering_accuracy(*labels) == pytest.approx(reference.clustering_accuracy(*labels))


@given(labellings)
def test_scores_are_scikit_learns(labels):
    scores = clustering_scores(*labels)
    assert list(scores) == ["acc", "nmi", "ari"]
    assert scores["acc"] == clustering_accuracy(*labels)
    assert scores["nmi"] == pytest.approx(normalized_mutual_info_score(*labels))
    assert scores["ari"] == pytest.approx(adjusted_rand_score(*labels))


@given(labellings, st.permutations(range(-2, 2)))
def test_names_of_clusters_do_not_matter(labels, names):
    y, clusters = labels
    renamed = [names[cluster + 2] for cluster in clusters]
    assert clustering_scores(y, renamed) == pytest.approx(clustering_scores(y, clusters))


def test_labels_may_be_anything_that_sorts():
    words = np.array(["a", "b", "b", "c"])
    assert clustering_accuracy(words, [-5, 7, 7, 2**40]) == 1
    assert clustering_accuracy([0.5, 1.5, 1.5, 9.0], words) == 1
    assert clustering_accuracy([True, False], np.array([3, 4], np.int8)) == 1


@pytest.mark.parametrize("score", [clustering_accuracy, clustering_scores])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (([0, 1], [0]), r"labels_pred: expected as many entries as labels_true has \(2\), got 1"),
        (([], []), "labels_true: expected at least one label, got none"),
        (([[0, 1]], [0]), r"labels_true: expected .* 1 dimension.*, got shape \(1, 2\)"),
        (([0], 3), r"labels_pred: expected .* 1 dimension.*, got shape \(\)"),
    ],
)
def test_bad_labels_are_rejected(score, labels, message):
    with pytest.raises(ValueError, match=message):
        score(*labels)
