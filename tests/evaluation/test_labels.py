"""Confusion and label errors: scikit-learn's matrix, confident learning by loops, and errors planted among real digits."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from resfit.evaluation.labels import balance, confident_mistakes, confusion, label_issues, suspicious
from resfit.evaluation.metrics import softmax


def drawn(count: int = 400, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, classes, count)
    return softmax(draw.normal(0, 1.5, (count, classes)) + 2 * np.eye(classes)[labels]), labels


def test_confusion_is_scikit_learns_with_classes_that_never_come():
    probs, labels = drawn()
    ours = confusion(probs.argmax(1), labels, 6)
    np.testing.assert_array_equal(ours, confusion_matrix(labels, probs.argmax(1), labels=range(6)))


def test_mistakes_come_most_confident_first():
    probs, labels = drawn()
    rows = confident_mistakes(probs, labels, 7)
    wrong = [i for i in range(len(labels)) if probs[i].argmax() != labels[i]]
    assert rows.tolist() == sorted(wrong, key=lambda i: -probs[i].max())[:7]
    assert confident_mistakes(np.eye(3), np.arange(3)).tolist() == []


def test_issues_are_those_of_the_papers_definition():
    probs, labels = drawn()
    thresholds = [probs[labels == k, k].mean() for k in range(4)]
    expected = []
    for row, label in zip(probs, labels, strict=True):
        confident = [k for k in range(4) if row[k] >= thresholds[k]]
        expected.append(bool(confident) and max(confident, key=lambda k: row[k]) != label)
    assert label_issues(probs, labels).tolist() == expected
    assert 0 < sum(expected) < 100


def test_planted_label_errors_are_found():
    digits = load_digits()
    labels = digits.target.copy()
    planted = np.random.default_rng(0).choice(len(labels), 10, replace=False)
    labels[planted] = (labels[planted] + 1 + np.arange(10) % 8) % 10
    model = KNeighborsClassifier(20, weights="distance")
    probs = cross_val_predict(model, digits.data, labels, cv=5, method="predict_proba")
    found = suspicious(probs, labels)
    assert len(found) == 10
    assert len(set(found) & set(planted)) >= 5  # by chance one in twenty tries has any
    assert label_issues(probs, labels)[planted].sum() >= 5
    assert label_issues(probs, labels).sum() < 40
    own = probs[found, labels[found]]
    assert list(own) == sorted(own)


def test_few_suspicions_are_filled_with_mistakes_and_no_more():
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.4, 0.6], [0.3, 0.7]])
    labels = np.array([0, 1, 1, 1, 0])
    assert label_issues(probs, labels).tolist() == [False, True, False, False, True]
    assert suspicious(probs, labels).tolist() == [1, 4]
    assert suspicious(np.eye(2), np.array([0, 1])).tolist() == []


def test_a_class_without_images_is_never_confident():
    probs = np.array([[0.6, 0.1, 0.3], [0.2, 0.1, 0.7], [0.4, 0.05, 0.55]])
    assert label_issues(probs, np.array([0, 1, 0])).tolist() == [False, False, False]
    assert balance(np.array([0, 1, 0]), ("a", "b", "c")) == {"a": 2, "b": 1, "c": 0}
