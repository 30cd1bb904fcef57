"""Where a table's listings look wrong: changed on purpose and found again; and the sheet that a person fills in."""

import csv

import numpy as np
import pytest

from lobbycard.files import sha256
from lobbycard.poster.artifact import open_model
from lobbycard.report import doubts
from lobbycard.report.doubts import COLUMNS, SHEET, Doubt, find_doubts, full, together, write_doubts

REMOVED, ADDED = 0.06, 0.02  # share of the true labels that the table lacks; of the listed ones that are untrue, about


def spoiled_table(seed: int):
    """A table of 3,000 items with labels changed on purpose, and calibrated probabilities of its listings.

    Eight labels, from common and plain to see to rare and not to be told at all; half the items are of a kind that has more
    of the even ones, which only their labels tell. Returns listed and changed, (N, L) bool, and the probability that a label
    is listed given what can be seen of the item, which is what a calibrated model gives.
    """
    rng = np.random.default_rng(seed)
    shares = np.array([0.4, 0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.01])
    plain = np.array([1.5, 2.0, 2.5, 1.0, 3.0, 0.3, 2.0, 0.0])  # how much of a label can be seen, in log-odds
    seen = np.log(shares / (1 - shares)) - plain**2 / 4 + plain * rng.normal(size=(3000, 8))
    kinds = np.array([1, -1] * 4), -np.array([1, -1] * 4)
    by_kind = [1 / (1 + np.exp(-seen - kind)) for kind in kinds]
    true = rng.uniform(size=seen.shape) < np.where(rng.uniform(size=(3000, 1)) < 0.5, *by_kind)
    added = ADDED * shares
    changed = rng.uniform(size=seen.shape) < np.where(true, REMOVED, added)
    return true ^ changed, changed, added + (1 - REMOVED - added) * np.mean(by_kind, axis=0)


def found_among(rows, changed, labels, count=50):
    return np.mean([changed[it.item, labels.index(it.label)] for it in rows[:count]])


def names(n: int, width: int):
    return [f"i{i}" for i in range(n)], [""] * n, [f"label {j}" for j in range(width)]


@pytest.mark.parametrize("seed", range(4))
def test_labels_changed_on_purpose_are_found_far_above_chance(seed):
    listed, changed, p = spoiled_table(seed)
    ids, titles, labels = names(*listed.shape)
    rows = find_doubts(ids, titles, labels, listed, p)
    removals, additions = [it for it in rows if it.listed], [it for it in rows if not it.listed]
    assert min(len(removals), len(additions)) > 50
    # Over 40 seeds: "listed" 0.10 to 0.40 (chance 0.02), "not listed" 0.22 to 0.54 (0.01), both by turns 0.32 to 0.64.
    assert found_among(removals, changed, labels) > 5 * changed[listed].mean()
    assert found_among(additions, changed, labels) > 10 * changed[~listed].mean()
    assert found_among(rows, changed, labels) > max(0.25, 15 * changed.mean())


def test_the_lowest_probabilities_alone_find_fewer_wrong_listings():
    ours, alone = [], []
    for seed in range(8):
        listed, changed, p = spoiled_table(seed)
        ids, titles, labels = names(*listed.shape)
        removals = [it for it in find_doubts(ids, titles, labels, listed, p) if it.listed]
        ours.append(found_among(removals, changed, labels))
        lowest = np.argsort(np.where(listed, p, np.inf), axis=None)[:50]
        alone.append(changed.ravel()[lowest].mean())
    assert np.mean(ours) > 1.3 * np.mean(alone)


def test_a_rare_label_that_can_hardly_be_told_does_not_fill_the_list():
    listed, _, p = spoiled_table(0)
    ids, titles, labels = names(*listed.shape)
    hardly = {"label 5", "label 7"}  # given 0.01 and 0.1 whatever the item
    assert {it.label for it in find_doubts(ids, titles, labels, listed, p) if it.listed}.isdisjoint(hardly)
    seen = np.array([label not in {"label 0", "label 6"} for label in labels])
    doubted = {it.label for it in find_doubts(ids, titles, labels, listed, p, seen)}
    assert doubted and doubted.isdisjoint({"label 0", "label 6"})


def plain_table():
    """Twenty items, two labels that have nothing to do with each other, read well: nothing to doubt."""
    truth = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 5, bool)
    return truth, np.where(truth, 0.8, 0.1)


def test_what_is_doubted_and_how_it_is_said():
    truth, p = plain_table()
    assert find_doubts(*names(20, 2), truth, p) == []
    p[0, 0], p[4, 1], p[7, 0] = 0.01, 0.97, 0.9
    rows = find_doubts([f"tt{i}" for i in range(20)], ["Blue"] + [""] * 19, ["Drama", "War"], truth, p)
    assert [(it.item_id, it.label, it.listed, it.suggestion) for it in rows] == [
        ("tt0", "Drama", True, "remove?"),
        ("tt4", "War", False, "add?"),  # the likeliest of what is not listed
        ("tt7", "Drama", False, "add?"),
    ]
    assert rows[0] == Doubt(0, "tt0", "Blue", "Drama", True, 0.01, 0.8, ("Drama",))
    assert rows[2].listed_labels == () and rows[1].listed_labels == ("Drama",)


def test_both_kinds_take_turns_until_one_is_used_up():
    truth, p = plain_table()
    p[[0, 2, 4], 0] = [0.01, 0.02, 0.03]
    p[3, 0] = 0.95
    rows = find_doubts(*names(20, 2), truth, p)
    assert [(it.item, it.listed) for it in rows] == [(0, True), (3, False), (2, True), (4, True)]


def test_a_label_left_out_where_the_table_had_no_room_is_weaker_evidence(monkeypatch):
    truth = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 1, 1]] * 20, bool)
    np.testing.assert_array_equal(full(truth), [True, True, False, False, True] * 20)
    p = np.where(truth, 0.7, 0.1)
    p[0, 3], p[2, 2] = 0.99, 0.8  # a label that item 0 had no room for, and one that item 2 had

    def order():
        return [it.item for it in find_doubts(*names(100, 4), truth, p) if not it.listed]

    assert order() == [2, 0]
    monkeypatch.setattr(doubts, "FULL", 0.0)
    assert order() == [0, 2]


@pytest.mark.parametrize(
    ("counts", "capped"),
    [
        ([1, 2, 3, 3, 3], [False, False, True, True, True]),
        ([1, 1, 1, 2, 2, 3], [False] * 6),  # counts thin out by themselves
        ([1, 2, 3, 3, 4], [False] * 5),
        ([2, 2], [True, True]),
        ([], []),
    ],
)
def test_a_cap_is_told_by_more_items_at_the_most_than_one_below(counts, capped):
    truth = np.arange(4) < np.reshape(counts, (-1, 1))
    np.testing.assert_array_equal(full(truth), np.array(capped, bool))


def test_what_other_labels_say_is_naive_bayes():
    truth = np.random.default_rng(5).uniform(size=(60, 4)) < [0.5, 0.3, 0.2, 0.1]
    expected = np.zeros((60, 4))
    for i in range(60):
        for j in range(4):
            for k in set(np.flatnonzero(truth[i])) - {j}:
                with_j, without = truth[truth[:, j], k], truth[~truth[:, j], k]
                prior = 2 * truth[:, k].mean()
                expected[i, j] += np.log(
                    ((with_j.sum() + prior) / (len(with_j) + 2)) / ((without.sum() + prior) / (len(without) + 2))
                )
    np.testing.assert_allclose(together(truth), expected)


@pytest.mark.parametrize(("n", "width"), [(0, 0), (0, 3), (1, 1), (5, 0), (3, 2)])
def test_with_little_to_go_by_nothing_is_doubted_and_nothing_breaks(n, width, recwarn):
    for truth in (np.zeros((n, width), bool), np.ones((n, width), bool)):
        for value in (0.0, 0.5, 1.0):
            assert find_doubts(*names(n, width), truth, np.full((n, width), value)) == []
    assert not recwarn.list


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_sheet_is_for_a_person_and_no_spreadsheet_computes_it(tmp_path):
    hostile = '=HYPERLINK("http://x","Amélie, \n千")'
    rows = [
        Doubt(0, "tt1", hostile, "Drama", True, 0.0123, 0.5, ("Drama", "War")),
        Doubt(1, "+2", "Title", "@cmd", False, 0.9, 0.25, ("-1", "War")),
        Doubt(2, "3", "", "War", False, 0.9, 0.25, ()),
    ]
    write_doubts(rows, tmp_path / SHEET)
    first, second, third = read(tmp_path / SHEET)
    assert list(first) == list(COLUMNS)
    assert first == {
        "item_id": "tt1",
        "title": "'" + hostile,
        "label": "Drama",
        "listed": "yes",
        "probability": "0.012",
        "typical_probability": "0.500",
        "listed_labels": "Drama|War",
        "listed_count": "2",
        "suggestion": "remove?",
        "verdict": "",
    }
    assert [second[c] for c in ("item_id", "label", "listed_labels")] == ["'+2", "'@cmd", "'-1|War"]
    assert [second[c] for c in ("listed", "suggestion")] == ["no", "add?"]
    assert (third["listed_labels"], third["listed_count"]) == ("", "0")


def test_a_sheet_that_cannot_be_finished_leaves_the_old_one_alone(tmp_path):
    def broken():
        yield Doubt(0, "tt1", "", "Drama", True, 0.1, 0.5, ("Drama",))
        raise OSError("disk gone")

    (tmp_path / SHEET).write_text("old", encoding="utf-8")
    with pytest.raises(OSError, match="disk gone"):
        write_doubts(broken(), tmp_path / SHEET)
    assert [file.name for file in tmp_path.iterdir()] == [SHEET]
    assert (tmp_path / SHEET).read_text(encoding="utf-8") == "old"


def test_a_model_folder_holds_the_sheet_of_its_validation_side(trained):
    folder = open_model(trained.config.out)
    assert folder.about["files"][SHEET] == sha256(folder.path / SHEET)
    assert (folder.path / SHEET).read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)
    assert {row["item_id"] for row in read(folder.path / SHEET)} <= set(trained.data.side(True)["item_id"])
