"""Grouped, stratified splits: nothing near-identical on both sides, shares kept, the same split in any order."""

import io
import time

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lobbycard.catalog.image import ImageError, load_poster
from lobbycard.catalog.select import label_matrix
from lobbycard.catalog.split import group_items, leak_check, perceptual_hashes, read_split, split_items, write_split
from lobbycard.errors import InputError

NAMES = [f"L{j:02d}" for j in range(20)]
SHARES = np.geomspace(0.45, 0.004, 20)


def table_of(n, seed=0):
    """Items with labels as uneven as genres are, from 45 % down to 0.4 %."""
    has = np.random.default_rng(seed).random((n, len(NAMES))) < SHARES
    has[~has.any(axis=1), 0] = True
    labels = [tuple(np.array(NAMES)[row]) for row in has]
    return pd.DataFrame({"item_id": [f"tt{i * 37 % 9_999_991:07d}" for i in range(1, n + 1)], "labels": labels})


def random_hashes(n, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64)


def flipped(value, *bits):
    return np.uint64(int(value) ^ sum(1 << int(bit) for bit in bits))


def brute_force_groups(hashes, distance=4):
    """A second path to the same groups: Python integers, every pair, union by relabelling."""
    group = list(range(len(hashes)))
    for i, one in enumerate(hashes):
        for j in range(i):
            if bin(int(one) ^ int(hashes[j])).count("1") <= distance:
                group = [group[i] if g == group[j] else g for g in group]
    return {frozenset(i for i, g in enumerate(group) if g == name) for name in set(group)}


def sets_of(groups):
    return {frozenset(np.flatnonzero(groups == name)) for name in np.unique(groups)}


def split_of(frame, groups=None, valid=0.2, seed=0):
    groups = np.arange(len(frame)) if groups is None else groups
    return split_items(frame, groups, NAMES, valid, seed)


# Hashes


def test_hashes_are_imagehash_bits_in_order(drawn):
    paths = sorted((drawn / "images").glob("*.jpg"))[:12]

    class Bar:
        done = 0

        def update(self, n):
            self.done += n

    bar = Bar()
    hashes = perceptual_hashes(paths, threads=3, bar=bar)
    assert hashes.dtype == np.uint64 and bar.done == 12
    assert [f"{int(h):016x}" for h in hashes] == [str(imagehash.phash(load_poster(path))) for path in paths]


def test_the_same_art_saved_at_other_sizes_and_qualities_is_one_group(posters):
    paths = sorted((posters / "images").glob("*.jpg"))[:30]

    def saved_again(scale, quality):
        def load(path):
            image = load_poster(path)
            image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
            data = io.BytesIO()
            image.save(data, "JPEG", quality=quality)
            return load_poster(data.getvalue())

        return load

    copies = [perceptual_hashes(paths)]
    copies += [perceptual_hashes(paths, saved_again(*how)) for how in [(1, 40), (0.5, 75), (0.8, 60), (2, 90)]]
    groups = group_items([f"{k}-{path.stem}" for k in range(5) for path in paths], np.concatenate(copies)).reshape(
        5, -1
    )
    assert (groups == groups[0]).all()
    assert len(np.unique(groups)) >= 25, "unlike art stays apart"


def test_an_unreadable_picture_is_named(tmp_path):
    (tmp_path / "tt1.jpg").write_bytes(b"<html>not found</html>")
    with pytest.raises(ImageError, match=r"tt1\.jpg: not a picture but a web page"):
        perceptual_hashes([tmp_path / "tt1.jpg"])


# Groups


def test_distance_4_joins_and_5_does_not_and_chains_do():
    one = random_hashes(1)[0]
    far = flipped(one, *range(20, 40))
    hashes = np.array([one, flipped(one, 0, 1, 2, 3), far, flipped(far, 0, 1, 2, 3, 4), flipped(one, *range(8))])
    groups = group_items(list("edcba"), hashes)
    # a is 8 bits from e and 4 from d: a chain. Numbered by the smallest id of each group.
    assert groups.tolist() == [0, 0, 2, 1, 0]
    assert len(set(group_items(list("edcba"), hashes, distance=0))) == 5


def test_groups_equal_a_brute_force_over_all_pairs():
    rng = np.random.default_rng(2)
    centres = random_hashes(40, seed=3)
    hashes = np.array(
        [flipped(centres[i % 40], *rng.choice(64, rng.integers(0, 5), replace=False)) for i in range(200)]
    )
    hashes = np.concatenate([hashes, random_hashes(50, seed=4), hashes[:10]])
    groups = group_items([f"{i:04d}" for i in range(len(hashes))], hashes)
    assert sets_of(groups) == brute_force_groups(hashes)
    assert groups.dtype == np.int64 and sorted(set(groups)) == list(range(groups.max() + 1))


def test_equal_ids_and_equal_keys_join_but_empty_ones_do_not():
    hashes = random_hashes(6)
    groups = group_items(
        ["a", "b", "c", "a", "d", "e"], hashes, also=[["", "u", "", "", "u", ""], ["x", "", "", "", "", "x"]]
    )
    assert groups.tolist() == [0, 1, 2, 0, 1, 0]


def test_8000_pictures_are_grouped_in_seconds_and_a_thousand_black_ones_do_no_harm():
    hashes = random_hashes(8000)
    hashes[:1000] = 0
    start = time.perf_counter()
    groups = group_items([f"{i:05d}" for i in range(8000)], hashes)
    assert time.perf_counter() - start < 10  # about 1 s; the margin is for a busy machine
    assert (groups[:1000] == 0).all() and groups.max() == 7000


# The split


def test_pain_20_multilabel_split_is_disjoint_grouped_and_stratified():
    frame = table_of(3000)
    rng = np.random.default_rng(1)
    hashes = random_hashes(3000)
    copies, originals = rng.choice(3000, (2, 400), replace=False)
    hashes[copies] = [flipped(hashes[i], *rng.choice(64, 4, replace=False)) for i in originals]
    groups = group_items(frame["item_id"], hashes)
    is_valid = split_of(frame, groups)
    assert not set(groups[is_valid]) & set(groups[~is_valid])
    assert (is_valid[copies] == is_valid[originals]).all()
    assert abs(is_valid.mean() - 0.2) < 0.01
    truth = label_matrix(frame, NAMES)
    counts, apart = truth.sum(axis=0), truth[is_valid].sum(axis=0)
    assert (np.abs(apart - 0.2 * counts) <= np.maximum(2, 0.02 * counts)).all()
    report = leak_check(groups, is_valid, hashes)
    assert report.clean and report.closest_distance > 4
    by_item = split_of(frame)  # without groups the same copies leak, and the check sees it
    assert leak_check(groups, by_item, hashes).near_pairs > 0


def test_stratified_beats_random_by_far():
    frame = table_of(2000)
    truth = label_matrix(frame, NAMES)

    def off(is_valid):
        return np.abs(truth[is_valid].sum(axis=0) / truth.sum(axis=0) - 0.2).mean()

    random = np.mean([off(np.random.default_rng(s).permutation(2000) < 400) for s in range(5)])
    assert off(split_of(frame)) < random / 3


def test_same_seed_same_split_whatever_the_row_order():
    frame = table_of(600)
    hashes = random_hashes(600)
    hashes[:50] = hashes[50:100]
    order = np.random.default_rng(9).permutation(600)
    groups = group_items(frame["item_id"], hashes)
    again = frame.iloc[order].reset_index(drop=True)
    groups_again = group_items(again["item_id"], hashes[order])
    assert (groups[order] == groups_again).all()
    assert (split_of(frame, groups)[order] == split_of(again, groups_again)).all()
    assert (split_of(frame, groups + 77) == split_of(frame, groups)).all(), "the names of the groups do not matter"
    assert (split_of(frame, groups, seed=1) != split_of(frame, groups)).any()


def test_the_measuring_side_is_spread_over_the_table():
    ranks = np.flatnonzero(split_of(table_of(2000).sort_values("item_id", ignore_index=True)))
    assert (np.histogram(ranks, 5, (0, 2000))[0] > 50).all()


@pytest.mark.parametrize("n", [40, 150])
@pytest.mark.parametrize("valid", [0.05, 0.1, 0.5])
def test_a_label_with_5_items_is_on_both_sides_even_for_small_shares(n, valid):
    for seed in range(5):
        frame = table_of(n, seed)
        truth, is_valid = label_matrix(frame, NAMES), split_of(frame, valid=valid, seed=seed)
        enough = truth.sum(axis=0) >= 5
        assert truth[is_valid].any(axis=0)[enough].all() and truth[~is_valid].any(axis=0)[enough].all()


def test_large_groups_do_not_upset_the_share():
    frame = table_of(400)
    groups = np.concatenate([np.repeat([0, 1], 40), np.arange(2, 322)])
    assert abs(split_of(frame, groups).mean() - 0.2) < 0.03


@pytest.mark.parametrize("labels", [(), ("A",), ("A", "B")])
def test_few_labels_few_items(labels):
    frame = pd.DataFrame({"item_id": ["a", "b", "c"], "labels": [labels] * 3})
    is_valid = split_items(frame, [0, 1, 2], list(labels), 0.2, 0)
    assert is_valid.sum() == 1


def test_no_side_is_ever_empty():
    for n, seed in [(3, 9), (4, 9), (5, 9), (7, 4)]:  # where stratification alone draws nothing, sixteen times
        has = np.random.default_rng(seed).random((n, 6)) < 0.4
        labels = [tuple(np.array(NAMES[:6])[row]) for row in has]
        frame = pd.DataFrame({"item_id": list("abcdefg"[:n]), "labels": labels})
        for valid in (0.05, 0.9):
            assert 0 < split_items(frame, range(n), NAMES[:6], valid, seed).sum() < n


def test_impossible_splits_are_refused():
    frame = table_of(10)
    with pytest.raises(InputError, match=r"--valid: expected a share between 0 and 1, such as 0\.2, got 1\.5"):
        split_of(frame, valid=1.5)
    with pytest.raises(InputError, match="10 items in 1 groups of near-identical pictures: nothing to split"):
        split_of(frame, np.zeros(10, int))


# The check


def test_leak_check_finds_what_the_groups_missed():
    hashes = random_hashes(50)
    hashes[40] = flipped(hashes[3], 7, 60, 61)
    is_valid = np.arange(50) >= 40
    report = leak_check(np.arange(50), is_valid, hashes)
    assert (report.pairs_checked, report.shared_groups, report.closest_distance, report.near_pairs) == (400, 0, 3, 1)
    assert report.sentence().startswith("LEAK: 400 pairs") and "split again" in report.sentence()
    shared = leak_check(np.arange(50) % 45, is_valid, random_hashes(50))
    assert shared.shared_groups == 5 and not shared.clean
    fine = leak_check(np.arange(50), is_valid, random_hashes(50))
    expected = min(bin(int(a) ^ int(b)).count("1") for a in random_hashes(50)[:40] for b in random_hashes(50)[40:])
    assert fine.closest_distance == expected
    assert fine.sentence() == (
        f"Leak check passed: 400 pairs across the sides compared; the closest two differ in {expected} of 64 bits, "
        "and no group stands on both sides."
    )


def test_leak_check_of_an_empty_side_says_so():
    report = leak_check([0, 1], [False, False], random_hashes(2))
    assert report.closest_distance is None and "one side is empty" in report.sentence()


# The file


def test_a_split_read_back_is_the_split(tmp_path):
    frame = table_of(60)
    frame["group"], frame["is_valid"], hashes = np.arange(60) // 2, split_of(frame), random_hashes(60)
    path = tmp_path / "models" / "split.csv"
    write_split(path, frame, hashes)
    assert path.read_text(encoding="utf-8").splitlines()[0] == "item_id,side,group,hash"
    assert [p.name for p in path.parent.iterdir()] == ["split.csv"]
    back = read_split(path, frame["item_id"])
    assert (back["item_id"] == frame["item_id"]).all() and (back["is_valid"] == frame["is_valid"]).all()
    assert (back["group"] == frame["group"]).all() and (back["hash"].to_numpy() == hashes).all()
    before = path.read_bytes()
    order = np.random.default_rng(0).permutation(60)
    write_split(path, frame.iloc[order], hashes[order])
    assert path.read_bytes() == before, "the file does not depend on the order of the rows"


def test_ids_unknown_to_the_split_or_to_the_table_are_named(tmp_path):
    frame = table_of(10).assign(group=range(10), is_valid=[True] * 2 + [False] * 8)
    path = tmp_path / "split.csv"
    write_split(path, frame, random_hashes(10))
    with pytest.raises(InputError, match="not in this split: tt9999999; give the table it was made from"):
        read_split(path, [*frame["item_id"], "tt9999999"])
    with pytest.raises(InputError, match=r"not in the table: tt\d+, tt\d+, tt\d+ and 2 more; give the table"):
        read_split(path, frame["item_id"][:5])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("imdbId,Genre\n1,Drama\n", "not a split; expected the columns item_id, side, group, hash"),
        ("", "not a split"),
        ("item_id,side,group,hash\na,test,0,0000000000000000\n", "line 2: .* found 'a,test,0,0000000000000000'"),
        ("item_id,side,group,hash\na,train,0,1.2E+15\n", "line 2: .* hash of 16 hexadecimal digits"),
        ("item_id,side,group,hash\na,train,0,-000000000000001\n", "line 2: .* hash of 16 hexadecimal digits"),
        ("item_id,side,group,hash\na,train,99999999999999999999,0000000000000000\n", "line 2: .* a group number"),
        ("item_id,side,group,hash\na,train,0\n", "line 2"),
        ("item_id,side,group,hash\n" + "a,train,0,0000000000000000\n" * 2, "a more than once"),
    ],
)
def test_a_damaged_split_is_refused(tmp_path, text, words):
    path = tmp_path / "split.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        read_split(path)


def test_no_split_file(tmp_path):
    with pytest.raises(InputError, match=r"no such file, expected the split\.csv that training writes"):
        read_split(tmp_path / "split.csv")
