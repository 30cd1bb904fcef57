"""What several test files share: real or drawn posters, and one small trained model.

With LOBBYCARD_NO_SKIPS set, what is skipped because a tool is missing (browser, axe, curl, a package) fails instead.
"""

import os
import re
from pathlib import Path

import pytest

# Skips for what a package manager brings; those for the system (Windows, macOS) and for further Pythons stay skips everywhere.
MISSING = re.compile(r"could not import|no chromium|no curl", re.IGNORECASE)


def _no_skip(report):
    reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
    if os.environ.get("LOBBYCARD_NO_SKIPS") and MISSING.search(reason):
        report.outcome, report.longrepr = "failed", f"{reason}, and LOBBYCARD_NO_SKIPS is set: install it"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport():
    return _no_skip((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report():
    return _no_skip((yield))


@pytest.fixture(scope="session")
def posters(tmp_path_factory) -> Path:
    """A folder with images/ and MovieGenre.csv: real posters where LOBBYCARD_POSTERS names them, else drawn ones."""
    if folder := os.environ.get("LOBBYCARD_POSTERS"):
        return Path(folder)
    return drawn_posters(tmp_path_factory.mktemp("drawn"), 240)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """A small folder of drawn posters and their table, the same on every machine."""
    return drawn_posters(tmp_path_factory.mktemp("sample"), 240)


def drawn_posters(folder: Path, n: int) -> Path:
    from lobbycard.catalog.sample import write_sample

    write_sample(folder, n=n, seed=3)
    return folder


TINY = {
    "download": False,
    "min_count": 10,
    "per_genre": 0,
    "arch": "timm/test_resnet",
    "weights": "none",
    "size": "64x48",
    "batch_size": 32,
    "workers": 0,
    "lr": 5e-3,
    "weight_decay": 0.01,
    "mixup": 0.0,  # three epochs from nothing learn nothing from mixed posters
    "precision": "fp32",
}


@pytest.fixture(scope="session")
def trained(drawn, tmp_path_factory):
    """A trainer that ran all stages on drawn posters with a tiny network, in seconds; its model folder is `config.out`."""
    from lobbycard.poster.trainer import MovieGenreTrainer

    out = tmp_path_factory.mktemp("models") / "tiny"
    trainer = MovieGenreTrainer(
        csv=drawn / "MovieGenre.csv", images=drawn / "images", out=out, freeze_epochs=1, epochs=2, **TINY
    )
    trainer.run()
    return trainer
