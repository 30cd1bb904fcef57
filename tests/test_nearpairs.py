"""Near-identical hashes among very many: FAISS's pairs against those of comparing everything."""

import sys

import numpy as np
import pytest

from lobbycard.catalog import neardup, nearpairs, split
from lobbycard.catalog.nearpairs import find_near
from lobbycard.errors import InputError


def planted(n: int, near: int, seed: int) -> np.ndarray:
    """N random hashes, of which the first `near` are others with up to 6 bits turned over."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, n, dtype=np.uint64)
    for i in range(near):
        turned = rng.choice(64, rng.integers(0, 7), replace=False).astype(np.uint64)
        hashes[i] = hashes[rng.integers(near, n)] ^ np.bitwise_or.reduce(np.uint64(1) << turned, initial=np.uint64(0))
    return rng.permutation(hashes)


@pytest.mark.parametrize("distance", [0, 2, 4, 6])
def test_groups_by_faiss_equal_those_of_comparing_all_pairs(monkeypatch, distance):
    hashes = planted(4000, 1500, seed=distance)
    ids = [f"{i:05d}" for i in range(len(hashes))]
    compared = neardup.group_items(ids, hashes, distance)
    assert len(set(compared)) < len(hashes)
    monkeypatch.setattr(neardup, "MANY", 1)
    assert np.array_equal(neardup.group_items(ids, hashes, distance), compared)
    keys = [str(i % 900) for i in range(len(hashes))]
    found = neardup.group_items(ids, hashes, distance, also=[keys])
    monkeypatch.undo()
    assert np.array_equal(found, neardup.group_items(ids, hashes, distance, also=[keys]))


@pytest.mark.parametrize("near", [0, 40])
def test_the_leak_check_by_faiss_equals_that_of_comparing_all_pairs(monkeypatch, near):
    hashes = planted(1500, near, seed=5)
    hashes[:30] = hashes[30:60] if near else hashes[:30]  # the same one more than once
    is_valid = np.random.default_rng(1).random(1500) < 0.2
    compared = split.leak_check(np.arange(1500), is_valid, hashes)
    monkeypatch.setattr(split, "_MANY_PAIRS", 1)
    found = split.leak_check(np.arange(1500), is_valid, hashes)
    assert found.pairs_checked == compared.pairs_checked and found.near_pairs == compared.near_pairs
    if near:
        assert found == compared and found.near_pairs > 0 and found.sentence() == compared.sentence()
    else:
        assert found.closest_distance is None and compared.closest_distance > 4
        assert "the closest two differ in more than 4 of 64 bits, and no group stands on both sides" in found.sentence()


@pytest.mark.skipif(sys.platform != "linux", reason="FAISS beside PyTorch in one process is for Linux alone")
def test_chains_are_joined_however_few_pairs_are_held_at_a_time(monkeypatch):
    steps = np.bitwise_or.accumulate(
        np.uint64(1) << np.arange(40, dtype=np.uint64)
    )  # a chain, each two bits from the next
    hashes = np.concatenate([steps[::2], planted(300, 0, 3)])
    counts = np.stack([np.arange(len(hashes)) % 3, np.arange(len(hashes)) % 2])
    at_once = nearpairs.search(hashes, 2, counts)
    monkeypatch.setattr(nearpairs, "_EDGES", 1)
    monkeypatch.setattr(nearpairs, "_QUERIES", 3)
    found = nearpairs.search(hashes, 2, counts)
    assert len(set(found.component[:20])) == 1 and len(set(found.component)) == 301
    assert found.across == at_once.across > 0 and found.closest == at_once.closest


def test_a_thousand_copies_with_noise_are_one_group_and_do_no_harm():
    one, rng = np.uint64(0x1234_5678_9ABC_DEF0), np.random.default_rng(0)
    noisy = one ^ (np.uint64(1) << rng.integers(0, 64, 3000).astype(np.uint64))
    found = find_near(np.concatenate([noisy, planted(3000, 0, 1)]), 4)
    assert len(set(found.component[:3000])) == 1 and len(set(found.component)) == 3001


def test_a_search_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"(?s)searching 4 hashes failed: .*ValueError: invalid literal"):
        find_near(np.arange(4, dtype=np.uint64), "four")


def test_without_faiss_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(nearpairs, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="4 pictures to compare need FAISS, .* pip install faiss-cpu"):
        find_near(np.arange(4, dtype=np.uint64), 4)
