"""decide(): thresholds, shift, top-k, never empty."""

import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from lobbycard.errors import InputError
from lobbycard.scoring.decide import decide

THREE = [[0.6, 0.5, 0.1], [0.2, 0.1, 0.4], [0.9, 0.8, 0.7]]


def expected_by_hand(probabilities, thresholds, top_k):
    """The rule written out item by item, in another way than the code."""
    answers = []
    for row, cuts in zip(probabilities, thresholds, strict=True):
        best_first = sorted(range(len(row)), key=lambda label: (-row[label], label))
        passing = [label for label in best_first if row[label] >= cuts[label]][:top_k]
        answers.append([label in (passing or best_first[:1]) for label in range(len(row))])
    return np.array(answers, dtype=bool).reshape(np.shape(probabilities))


def test_known_answers():
    assert decide(THREE).tolist() == [[True, True, False], [False, False, True], [True, True, True]]
    assert decide(THREE, [0.7, 0.5, 0.05]).tolist() == [[False, True, True], [False, False, True], [True, True, True]]
    assert decide(THREE, top_k=1).tolist() == [[True, False, False], [False, False, True], [True, False, False]]


def test_agrees_with_the_rule_written_item_by_item():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n_items, n_labels = rng.integers(1, 6), rng.integers(1, 7)
        probabilities = rng.integers(0, 6, (n_items, n_labels)) / 5  # coarse, so that ties and exact hits are common
        top_k = None if rng.random() < 0.3 else int(rng.integers(1, 8))
        for thresholds in (rng.integers(0, 6) / 5, rng.random(n_labels), rng.integers(0, 6, (n_items, n_labels)) / 5):
            full = np.broadcast_to(thresholds, probabilities.shape)
            np.testing.assert_array_equal(
                decide(probabilities, thresholds, top_k), expected_by_hand(probabilities, full, top_k)
            )


def test_top_k_counts_what_passed_not_what_is_merely_probable():
    # The likeliest label misses its own threshold; the second reaches its own and is the answer.
    assert decide([[0.6, 0.3, 0.2]], [0.7, 0.2, 0.1], top_k=1).tolist() == [[False, True, False]]


def test_first_label_wins_between_equal_probabilities():
    assert decide([[0.3, 0.3, 0.3]], 0.9).tolist() == [[True, False, False]]
    assert decide([[0.3, 0.3, 0.3]], 0.1, top_k=2).tolist() == [[True, True, False]]


def test_pain_17_a_threshold_never_leaves_an_answer_empty():
    probabilities = np.random.default_rng(1).random((500, 8)) * 0.3  # nothing near 0.5, as with rare labels
    for thresholds in (0.5, 1.0, np.full(8, 0.99)):
        decisions = decide(probabilities, thresholds)
        assert (decisions.sum(axis=1) == 1).all()
        assert (decisions.argmax(axis=1) == probabilities.argmax(axis=1)).all()


def test_pain_17_moving_the_shift_changes_the_answers():
    rng = np.random.default_rng(2)
    probabilities, thresholds = rng.random((300, 6)), rng.uniform(0.05, 0.95, 6)
    given = [decide(probabilities, thresholds, shift=shift) for shift in (-2, -1, 0, 1, 2)]
    for bolder, stricter in pairwise(given):
        assert bolder.sum() > stricter.sum()
        items, labels = np.nonzero(stricter & ~bolder)  # nothing is added but the best guess where all else is gone
        assert (stricter[items].sum(axis=1) == 1).all()
        assert (labels == probabilities[items].argmax(axis=1)).all()


def test_shift_is_in_log_odds():
    # Odds of 0.2 are 1:4; twice that, 1:2, is a probability of 1/3.
    assert decide([[0.3, 0.9]], [0.2, 0.5], shift=np.log(2)).tolist() == [[False, True]]
    assert decide([[0.34, 0.9]], [0.2, 0.5], shift=np.log(2)).tolist() == [[True, True]]
    assert decide([[0.12, 0.9]], [0.2, 0.5], shift=-np.log(2)).tolist() == [[True, True]]
    assert decide([[0.11, 0.9]], [0.2, 0.5], shift=-np.log(2)).tolist() == [[False, True]]


@pytest.mark.parametrize("shift", [-1e6, -800, -3, 0, 3, 800, 1e6])
def test_thresholds_0_and_1_are_always_and_only_certain_whatever_the_shift(shift):
    with np.errstate(all="raise"):
        assert decide([[0.0, 0.999, 1.0]], [0.0, 1.0, 1.0], shift=shift).tolist() == [[True, False, True]]


def test_a_huge_shift_gives_everything_or_the_best_guess():
    assert decide(THREE, shift=-1e9).all()
    assert decide(THREE, shift=1e9).sum(axis=1).tolist() == [1, 1, 1]


def test_no_items_and_no_labels():
    assert decide(np.empty((0, 3)), [0.1, 0.2, 0.3], top_k=2).shape == (0, 3)
    assert decide(np.empty((4, 0)), 0.5, top_k=2).shape == (4, 0)
    assert decide(np.empty((4, 0)), []).shape == (4, 0)


def test_inputs_stay_as_they_were():
    probabilities, thresholds = np.array(THREE), np.array([0.7, 0.5, 0.05])
    before = probabilities.copy(), thresholds.copy()
    decide(probabilities, thresholds, top_k=1, shift=-1.0)
    assert (probabilities == before[0]).all() and (thresholds == before[1]).all()


def test_float32_and_float64_decide_alike_for_one_number_and_for_many():
    probabilities = np.array([[0.7, 0.1]], dtype=np.float32)  # float32's 0.7 lies below 0.7
    assert decide(probabilities, 0.7).tolist() == decide(probabilities, [0.7, 0.7]).tolist()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0.1, 0.2],), "probabilities must have shape (N items, L labels), got (2,)"),
        (([[0.1, np.nan], [0.1, 0.2]],), "probabilities hold NaN in 1 of 2 items, the first at row 0"),
        (([[-2.0, 3.5]],), "probabilities must lie in [0, 1], got -2 to 3.5; if these are logits, take their sigmoid"),
        (([["a", "b"]],), "probabilities must be an array of numbers"),
        (([[0.1], [0.1, 0.2]],), "check for text or rows of unequal length"),
        (([[0.1, 0.2]], [0.5, 0.5, 0.5]), "one for each of the 2 labels; got shape (3,)"),
        (([[0.1, 0.2]], [[0.5, 0.5], [0.5, 0.5]]), "or of shape (1, 2); got shape (2, 2)"),
        (([[0.1, 0.2]], 1.5), "thresholds must lie in [0, 1], got 1.5 to 1.5"),
        (([[0.1, 0.2]], [0.5, np.nan]), "thresholds must lie in [0, 1], got nan to nan"),
        (([[0.1, 0.2]], [[0.5, -1]]), "thresholds must lie in [0, 1], got -1 to 0.5"),
        (([[0.1, 0.2]], 0.5, 0), "top_k must be a whole number of at least 1, got 0"),
        (([[0.1, 0.2]], 0.5, 2.5), "top_k must be a whole number of at least 1, got 2.5"),
        (([[0.1, 0.2]], 0.5, True), "top_k must be a whole number of at least 1, got True"),
        (([[0.1, 0.2]], 0.5, None, float("nan")), "shift must be a finite number, got nan; 0 keeps the thresholds"),
        (([[0.1, 0.2]], 0.5, None, "1"), "shift must be a finite number, got '1'"),
    ],
)
def test_errors_say_what_was_expected_and_what_came(arguments, words):
    with pytest.raises(InputError, match=re.escape(words)):
        decide(*arguments)


def test_deciding_and_measuring_import_nothing_heavy():
    code = (
        "import sys, lobbycard.scoring.decide, lobbycard.scoring.calibrate, lobbycard.scoring.metrics, "
        "lobbycard.scoring.baselines; print([m for m in ('scipy', 'sklearn', 'pandas', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
