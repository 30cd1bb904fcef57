"""Settings: flags are fields, defaults stand once, impossible values are refused in words."""

from dataclasses import fields
from pathlib import Path

import pytest

from lobbycard.errors import InputError
from lobbycard.poster.config import Config, flag, parse, parse_size


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_field_is_a_flag_and_has_help(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    page = capsys.readouterr().out
    assert all(flag(f.name) in page for f in fields(Config) if f.name != "command")


def test_flags_end_in_their_fields():
    config = parse(["--csv", "a.csv", "--no-download", "--per-genre", "0", "--strategy", "probe", "--size", "96x64"])
    assert config.csv == Path("a.csv") and config.download is False and config.per_genre == 0
    assert config.sizes() == ((96, 64),) and config.epochs == Config.epochs
    assert (
        config.command == "python train_model.py --csv a.csv --no-download --per-genre 0 --strategy probe --size 96x64"
    )


def test_without_a_table_the_kaggle_file_is_taken_if_it_is_here(capsys):
    Path("MovieGenre.csv").write_text("imdbId,Genre,Poster\n")
    config = parse([])
    assert config.csv == Path("MovieGenre.csv") and config.arch == "resnet50"
    assert "MovieGenre.csv" in capsys.readouterr().out


def test_without_a_table_the_sample_preset_stands_behind_the_flags():
    config = parse(["--epochs", "2"])
    assert config.csv is None and config.out == Path("models/sample") and config.weights == "none"
    assert config.epochs == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"valid": 1.0}, "--valid: expected a share between 0 and 1, such as 0.2, got 1.0"),
        ({"batch_size": 0}, "--batch-size: expected 1 or more, got 0"),
        ({"size": "big"}, "--size: expected 224 or 288x192"),
        ({"size": "16"}, "32 to 1024 pixels"),
        ({"epochs": 0, "freeze_epochs": 0}, "nothing would be trained"),
        ({"lr": 0.0}, "--lr and --timeout must be above 0"),
        ({"weight_decay": -0.1}, "--weight-decay: expected 0 or above, got -0.1"),
        ({"mixup": 1e-300}, "--mixup: expected 0, or a parameter from 0.01 to 100, got 1e-300"),
    ],
)
def test_impossible_settings_say_what_was_expected(settings, words):
    with pytest.raises(InputError, match=words):
        Config(**settings)


def test_progressive_doubles_the_size_it_is_given():
    assert Config(strategy="progressive").sizes() == ((224, 224), (448, 448))
    assert Config(strategy="progressive", size="96x64").sizes() == ((96, 64), (192, 128))
    assert parse_size("224") == (224, 224)


def test_pain_3_settings_in_an_artifact_are_plain_values_without_the_makers_folders():
    config = Config(
        csv=Path("/home/ann/films/MovieGenre.csv"), arch="local-dir:/home/ann/nets/mobile", weights="/home/ann/w.pth"
    )
    plain = config.to_dict()
    assert plain["csv"] == "MovieGenre.csv" and plain["arch"] == "local-dir:mobile" and plain["weights"] == "w.pth"
    assert all(value is None or isinstance(value, (str, int, float, bool)) for value in plain.values())
    assert Config(arch="timm/test_resnet").to_dict()["arch"] == "timm/test_resnet"
    command = parse(
        ["--csv", "/home/ann/films/MovieGenre.csv", "--out", "models/mine", "--images", r"C:\Users\Ann\posters"]
    ).command
    assert command == "python train_model.py --csv MovieGenre.csv --out models/mine --images posters"


def test_cached_has_defaults_of_its_own_which_flags_still_overrule():
    standard, cached = Config().settled("standard"), Config().settled("cached")
    assert (standard.epochs, standard.soup) == (10, 1) and (cached.epochs, cached.soup) == (6, 4)
    assert Config(epochs=2, soup=1).settled("cached") == Config(epochs=2, soup=1, strategy="cached")
    with pytest.raises(InputError, match="--soup: expected 1 or more, got 0"):
        Config(soup=0)
