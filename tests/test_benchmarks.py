"""The benchmarks of training, scoring, downloading and growth run in their quick form and end with the agreed JSON."""

import json
import math
import os
import subprocess
import sys

import pytest

from benchmarks.subjects import ROOT

pytestmark = pytest.mark.slow
COMPARED = {"ours", "peer", "limit", "ratio_peer", "ratio_limit", "unit"}
WHERE = {"machine", "versions", "commit", "seed"}


def quick(name: str) -> dict:
    run = subprocess.run(
        [sys.executable, f"benchmarks/{name}.py", "--quick"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found.keys() >= WHERE
    return found


@pytest.mark.parametrize("name", ["bench_train", "bench_predict"])
def test_ours_the_peer_and_the_limit(name):
    found = quick(name)
    assert found.keys() >= COMPARED and found["unit"] == "posters/s"
    assert found["ratio_peer"] == pytest.approx(found["ours"] / found["peer"], rel=0.02)
    assert found["ratio_limit"] == pytest.approx(found["ours"] / found["limit"], rel=0.02)


def test_nothing_is_lost_by_a_host_with_faults():
    found = quick("bench_download")
    assert found.keys() >= COMPARED and found["peer"] is None  # img2dataset has an environment of its own
    assert found["lost"]["ours"] == found["with_faults"]["lost"]["ours"] == 0
    # Sixteen threads and 50 ms an answer: the server itself allows no more than 320 a second.
    assert 0 < found["ours"] < 1.05 * 16 / 0.05 and found["limit"] < 1.05 * 16 / 0.05


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell a process's most memory")
def test_every_stage_of_growth_is_measured_at_every_size():
    found = quick("bench_growth")
    assert found["sizes"] == [250, 1000]
    for row in found["stages"].values():
        first, second = row["seconds"]
        assert row["slope"] == pytest.approx(math.log(second / first) / math.log(4), abs=0.02)
        assert all(10 < most < 10_000 for most in row["peak_mb"])
