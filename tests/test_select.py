"""Keeping common labels and balancing them, independent of the order of the rows."""

import numpy as np
import pandas as pd
import pytest

from lobbycard.catalog.select import balance, counts_table, keep_common, label_counts, label_matrix, limit
from lobbycard.errors import InputError


def frame_of(*labels):
    ids = [f"tt{n:07d}" for n in range(1, len(labels) + 1)]
    return pd.DataFrame({"item_id": ids, "title": "", "labels": labels, "url": "", "file": [f"{i}.jpg" for i in ids]})


def drawn_at_random(n=900, seed=1):
    rng = np.random.default_rng(seed)
    names, shares = ["Drama", "Comedy", "War", "Music", "Musical"], [0.6, 0.4, 0.1, 0.05, 0.04]
    rows = [tuple(name for name, share in zip(names, shares, strict=True) if rng.random() < share) for _ in range(n)]
    return frame_of(*[row or ("Drama",) for row in rows])


def test_a_label_matches_whole_music_is_not_musical():
    frame = frame_of(("Musical",), ("Musical", "Drama"), ("Music",), ("Drama",))
    assert label_counts(frame) == {"Drama": 2, "Musical": 2, "Music": 1}
    assert label_matrix(frame, ["Music", "Musical"]).tolist() == [
        [False, True],
        [False, True],
        [True, False],
        [False] * 2,
    ]
    kept = keep_common(frame, 2)
    assert list(kept["labels"]) == [("Musical",), ("Musical", "Drama"), ("Drama",)]
    assert [("Music" in row) for row in balance(frame, 1, 0)["labels"]].count(True) == 1


def test_keep_common_filters_labels_and_drops_items_left_bare():
    frame = frame_of(("A", "B"), ("A",), ("B",), ("A", "C"), ("C",))
    kept = keep_common(frame, 3)
    assert list(kept["item_id"]) == ["tt0000001", "tt0000002", "tt0000004"]
    assert list(kept["labels"]) == [("A",)] * 3 and list(kept.index) == [0, 1, 2]
    assert frame["labels"][0] == ("A", "B"), "the table given is left as it was"


def test_no_common_label_names_the_commonest_and_the_flag():
    with pytest.raises(InputError, match=r"no label has 50 items or more; .* A \(2\), B \(1\)\. Lower --min-count"):
        keep_common(frame_of(("A", "B"), ("A",)), 50)
    with pytest.raises(InputError, match="no labels at all"):
        keep_common(frame_of((), ()), 1)


def test_balance_serves_every_label_and_counts_what_rarer_ones_drew():
    frame = drawn_at_random()
    before, after = label_counts(frame), label_counts(balance(frame, 60, seed=0))
    assert all(after[label] >= min(60, before[label]) for label in before)
    # Drama is drawn last and goes along with the rarer ones: only its shortfall is drawn on top.
    rarer = balance(frame[[row != ("Drama",) for row in frame["labels"]]], 60, seed=0)
    assert after["Musical"] == before["Musical"] < 60 <= label_counts(rarer)["Comedy"]
    assert after["Drama"] < before["Drama"] / 3


def test_balance_known_answer():
    # B (3 items) is rarer than A (6) and drawn first; both of its items have A too, so no other A is drawn.
    frame = frame_of(("A", "B"), ("A", "B"), ("A", "B"), ("A",), ("A",), ("A",))
    assert set(balance(frame, 2, 7)["item_id"]) < {"tt0000001", "tt0000002", "tt0000003"}
    assert len(balance(frame, 2, 7)) == 2
    assert len(balance(frame, 4, 7)) == 4
    assert len(balance(frame, 0, 7)) == len(balance(frame, 99, 7)) == 6


@pytest.mark.parametrize("draw", [lambda f, seed: balance(f, 50, seed), lambda f, seed: limit(f, 100, seed)])
def test_same_seed_same_items_whatever_the_order_of_the_rows(draw):
    frame = drawn_at_random()
    shuffled = frame.sample(frac=1, random_state=5)
    pd.testing.assert_frame_equal(draw(frame, 3), draw(shuffled, 3))
    assert set(draw(frame, 3)["item_id"]) != set(draw(frame, 4)["item_id"])


def test_limit_is_spread_over_the_table_and_never_more_than_there_is():
    frame = drawn_at_random()
    chosen = limit(frame, 300, 0)
    assert len(chosen) == 300 and chosen["item_id"].is_unique
    assert 0.4 < (chosen["item_id"] > "tt0000450").mean() < 0.6
    assert len(limit(frame, 10_000, 0)) == len(frame)
    with pytest.raises(InputError, match="--limit: expected at least 1 item, got 0"):
        limit(frame, 0, 0)


def test_negative_per_label_is_refused():
    with pytest.raises(InputError, match=r"--per-genre: expected 0 \(keep all\) or more, got -1"):
        balance(frame_of(("A",)), -1, 0)


def test_the_printed_table_has_both_counts_and_dashes():
    assert counts_table({"Drama": 1200, "News": 3}, {"Drama": 200}).splitlines() == [
        "  label  in table    chosen",
        "  Drama     1,200       200",
        "  News          3         -",
    ]


def test_matrix_of_nothing_keeps_its_shape():
    assert label_matrix(frame_of(("A",), ()), ["A", "B"]).shape == (2, 2)
    assert label_matrix(frame_of(("A",))[:0], ["A", "B"]).shape == (0, 2)
