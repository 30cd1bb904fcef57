"""The report and the model card: every number in them, nothing from outside, nothing unescaped."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from lobbycard.report import Findings, exhibits, metrics_table, page, plots, words, write_card, write_report
from lobbycard.report.sight import sight

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
LABELS = ["Animation", "Comedy", "Horror"]
TRUTH = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0]], bool)
PROBABILITIES = np.array(
    [[0.9, 0.25, 0.1], [0.7, 0.4, 0.2], [0.1, 0.8, 0.1], [0.05, 0.9, 0.1], [0.1, 0.3, 0.6], [0.4, 0.45, 0.35]]
)
THRESHOLDS = np.array([0.5, 0.45, 0.3])


def findings(**changes) -> Findings:
    """Six items, three labels; every figure in it is different from every other."""
    decisions = PROBABILITIES >= THRESHOLDS
    values = {
        "name": "tiny",
        "task": "poster-genres",
        "labels": LABELS,
        "truth": TRUTH,
        "probabilities": PROBABILITIES,
        "decisions": decisions,
        "thresholds": THRESHOLDS,
        "item_ids": [f"tt{i:07d}" for i in range(6)],
        "titles": ["Amélie", "千と千尋の神隠し", "Плохой", "", "Five & <six>", "Six"],
        "metrics": metrics(0.4321, 0.3987, 0.4876, 0.4765, width=0.0313),
        "baselines": {
            "none": metrics(0.1234, 0.0, 0.0, 0.0),
            "top2": metrics(0.1244, 0.0567, 0.3678, 0.3456),
            "prior": metrics(0.1255, 0.0341, 0.3012, 0.2987),
        },
        "per_label": {
            "Animation": label_row(0.8123, 0.7123, 0.6123, 0.5123, 2, 0.5, 0.0456),
            "Comedy": label_row(0.7234, 0.6234, 0.5234, 0.4234, 4, 0.45, 0.0667),
            "Horror": label_row(0.6345, 0.5345, 0.4345, 0.3345, 2, 0.3, 0.0678),
        },
        "sweep": [
            sweep_row(t, 0.7111 + t / 100, 0.5556, 0.2222 + t / 50, 0.3333 + t / 30, 0.4444, 0.6666) for t in (0.3, 0.5)
        ],
        "ece_before": 0.0987,
        "ece_after": 0.0123,
        "reliability_before": {
            "confidence": [0.1, np.nan, 0.8],
            "frequency": [0.2, np.nan, 0.6],
            "count": [12, 0, 6],
        },
        "reliability_after": {
            "confidence": [0.1, 0.5, 0.8],
            "frequency": [0.1, 0.5, 0.8],
            "count": [11, 2, 5],
        },
        "misses": (TRUTH & ~decisions).astype(int).T @ (~TRUTH & decisions).astype(int),
        "thumbnails": [Image.new("RGB", (300, 450), (40 * i, 20, 90)) for i in range(5)] + [None],
        "history": [
            history_row("head", 0, 0.6912, 0.6523, 0.2134, "00:11"),
            history_row("all layers", 1, 0.5912, 0.6123, None, "00:29"),
        ],
        "augmentation_sheet": Image.new("RGBA", (2400, 400), "teal"),
        "data": {
            "source": "movies.csv",
            "rows_read": 12345,
            "dropped": {"no label": 321, "double id": 17},
            "kept": 12007,
            "labels_before": {"Comedy": 7654, "Western": 29},
            "labels_after": {"Comedy": 4567},
            "downloads": {"ok": 11988, "rate_limited": 19},
            "coverage": [{"genre": "Comedy", "wanted": 4567, "share": 0.987}],
            "n_train": 9586,
            "n_valid": 2402,
            "n_groups": 11777,
            "leak_check": ["No movie stands on both sides."],
        },
        "config": {"arch": "resnet18", "seed": 0},
        "arch": "resnet18",
        "input_size": (288, 192),
        "versions": {"numpy": "2.4.6"},
        "seconds": {"download": 81.25, "train": 210.75},
        "machine": "2 cores, Linux",
        "command": "python train_model.py --csv 'my movies.csv'",
        "date": "2025-11-21",
        "notes": ["A note of the caller's."],
        "limits": ["A limit of the caller's."],
        "item_noun": "poster",
        "label_noun": "genre",
    }
    return Findings(**(values | changes))


def doubtful(only: int = 3, **ci95) -> Findings:
    """Seventy-two items with every combination of three labels, all seen, and three listings that look wrong; `ci95` are
    intervals of average precision, by label."""
    labels = LABELS[:only]
    truth = (np.arange(72)[:, None] >> np.arange(only) & 1).astype(bool)
    p = np.where(truth, 0.6, 0.05)
    if only == 3:
        p[4], p[1] = [0.05, 0.99, 0.01], [0.9, 0.05, 0.95]
    values = {
        "labels": labels,
        "truth": truth,
        "probabilities": p,
        "decisions": p >= 0.5,
        "thresholds": THRESHOLDS[:only],
        "item_ids": [f"tt{i:07d}" for i in range(72)],
        "titles": [""] * 72,
        "misses": None,
        "thumbnails": None,
    }
    rows = {label: dict(findings().per_label[label], support=36) for label in labels}
    rows |= {label: dict(rows[label], ap_ci95=ends) for label, ends in ci95.items()}
    return findings(**values, per_label=rows)


def metrics(mean_ap, macro, micro, samples, width=None):
    values = {"mAP": mean_ap, "macro_f1": macro, "micro_f1": micro, "samples_f1": samples}
    return {name: {"value": v} | ({"ci95": [v - width, v + width]} if width else {}) for name, v in values.items()}


def label_row(ap, f1, precision, recall, support, threshold, width):
    ends = {"ap_ci95": [ap - width, ap + width], "f1_ci95": [f1 - width, f1 + width]}
    return {
        "ap": ap,
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "support": support,
        "threshold": threshold,
    } | ends


def sweep_row(threshold, accuracy, nothing, macro, micro, precision, recall):
    return {
        "threshold": threshold,
        "accuracy": accuracy,
        "accuracy_predict_nothing": nothing,
        "macro_f1": macro,
        "micro_f1": micro,
        "precision": precision,
        "recall": recall,
    }


def history_row(phase, epoch, train, valid, mean_ap, time):
    scores = {"mAP": mean_ap, "f1_score": 0.3111 + epoch, "precision_score": 0.2, "recall_score": 0.1}
    return dict(phase=phase, epoch=epoch, train_loss=train, valid_loss=valid, **scores, time=time)


def small(n: int, width: int) -> Findings:
    """N items and L labels, with whatever cannot be measured missing."""
    rng = np.random.default_rng(0)
    p = rng.uniform(size=(n, width))
    labels = [f"label {j}" for j in range(width)]
    none = {"ap": None, "f1": float("nan"), "precision": 0.0, "recall": 0.0, "support": 0, "threshold": 0.5}
    return Findings(
        name="small",
        task="moods",
        labels=labels,
        truth=p > 0.5,
        probabilities=p,
        decisions=p > 0.4,
        thresholds=np.full(width, 0.5),
        item_ids=[str(i) for i in range(n)],
        titles=[""] * n,
        metrics=metrics(*[None] * 4),
        baselines={},
        per_label=dict.fromkeys(labels, none),
        misses=np.zeros((width, width), int),
    )


class Page(HTMLParser):
    """What a browser would see of a page: its text, its references, and whether its tags nest."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.text, self.ids, self.references, self.rows, self.tags = [], [], [], [], [], []
        self.unlabelled = []
        self.feed(html)
        self.close()
        assert self.open == [], "left open"
        self.words = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.references += [attrs[name] for name in ("src", "href", "xlink:href", "srcset", "data") if name in attrs]
        if (tag == "img" and not attrs.get("alt")) or (attrs.get("role") == "img" and not attrs.get("aria-label")):
            self.unlabelled.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script", "title"):
            self.text.append(data)
            if "td" in self.open or "th" in self.open:
                self.rows[-1][-1] += data.strip()

    def row(self, *starts: str) -> list[str]:
        """The first table row that starts with these cells."""
        return next(row for row in self.rows if tuple(row[: len(starts)]) == starts)


@pytest.fixture(scope="module")
def html() -> str:
    return page.report(findings())


def test_report_shows_every_number_it_was_given(html):
    seen = Page(html)
    assert seen.row("mAP", "0.432") == ["mAP", "0.432", "0.401 to 0.463", "0.123", "0.124", "0.126"]
    assert seen.row("samples-F1") == ["samples-F1", "0.476", "0.445 to 0.508", "0.000", "0.346", "0.299"]
    assert seen.row("Comedy", "0.723") == [
        "Comedy",
        "0.723",
        "0.657 to 0.790",
        "0.623",
        "0.557 to 0.690",
        "0.523",
        "0.423",
        "0.450",
        "4",
        "0.667",
        "2",
        "1",
        "2",
        "1",
        "too few",
    ]
    assert seen.row("0.50") == ["0.50", "0.232", "0.350", "0.444", "0.667", "0.716", "0.556"]
    assert seen.row("all layers") == [
        "all layers",
        "1",
        "0.5912",
        "0.6123",
        words.MISSING,
        "1.3111",
        "0.2000",
        "0.1000",
        "00:29",
    ]
    assert seen.row("Western") == ["Western", "29", words.MISSING]
    assert seen.row("Comedy", "4,567")[1:] == ["4,567", "0.987"]
    assert seen.row("rate_limited") == ["rate_limited", "19"]
    assert seen.row("train")[:2] == ["train", "210.8"]
    for text in (
        "Expected calibration error before: 0.099, after: 0.012",
        "12,345 rows read, 12,007 kept, 338 dropped",
        "9,586 to train on, 2,402 to measure on, in 11,777 groups",
        "No movie stands on both sides.",
        "A note of the",
        "A limit of the",
        "python train_model.py --csv 'my movies.csv'",
        "288 \N{MULTIPLICATION SIGN} 192 px",
        "2 cores, Linux",
        "2025-11-21",
        "resnet18",
        "2.4.6",
        "千と千尋の神隠し",
        "Плохой",
        "Amélie",
    ):
        assert text in seen.words


def test_report_is_one_well_formed_file_that_asks_nothing_of_a_network(html):
    seen = Page(html)
    assert len(seen.ids) == len(set(seen.ids))
    assert not {"script", "link", "iframe", "object", "base"} & set(seen.tags)
    assert seen.unlabelled == []
    inside = {f"#{name}" for name in seen.ids}
    outside = [r for r in seen.references if not r.startswith("data:image/") and r not in inside]
    assert outside == []
    assert [u for u in re.findall(r"url\(([^)]*)\)", html) if u not in inside] == []
    assert "@import" not in html
    assert re.findall(r"https?://(?!www\.w3\.org/)", html) == []


def test_every_colour_of_the_plots_is_a_variable_with_a_light_and_a_dark_value(html):
    drawn = html[html.index("<body>") :]
    assert re.findall(r"#[0-9a-f]{6}\b", drawn) == []
    light, dark = html.split("@media (prefers-color-scheme: dark)", 1)
    for name in plots.COLOURS:
        assert f"--{name}:" in light and f"--{name}:" in dark.split("* { box-sizing", 1)[0]
    defined = set(re.findall(r"--([a-z-]+):", html))
    assert set(re.findall(r"var\(--([a-z-]+)\)", html)) <= defined


def test_text_from_users_is_escaped_everywhere():
    bad = "<script>alert(1)</script>\"'&"
    html = page.report(
        findings(
            name=bad,
            labels=[bad, "Comedy", "Horror"],
            titles=[bad] * 6,
            item_ids=[bad + str(i) for i in range(6)],
            per_label={bad: label_row(0.8, 0.7, 0.6, 0.5, 2, 0.5, 0.01)},
            command=bad,
            machine=bad,
            notes=[bad],
            history=[history_row(bad, 0, 0.5, 0.4, 0.3, bad)],
            config={bad: bad},
            versions={bad: bad},
            seconds={bad: 1.0},
            data={
                "dropped": {bad: 1},
                "coverage": [{bad: bad}],
                "leak_check": [bad],
                "labels_before": {bad: 3},
            },
        )
    )
    seen = Page(html)
    assert "script" not in seen.tags and "<script" not in html
    assert seen.words.count("<script>alert(1)</script>") > 20


def test_text_from_users_is_escaped_among_doubts_and_in_what_is_seen():
    bad = "<script>alert(1)</script>\"'&"
    f = doubtful()
    labels = [f"{bad} {j}" for j in range(3)]
    rows = dict(zip(labels, f.per_label.values(), strict=True))
    rows[labels[0]]["ap_ci95"] = [0.51, 0.6]  # not seen, so named among what is not doubted
    html = page.report(replace(f, labels=labels, per_label=rows, titles=[bad] * 72, item_ids=[bad] * 72))
    assert "script" not in Page(html).tags and "<script" not in html
    part = Page(html[html.index('<section id="doubts">') : html.index('<section id="training">')]).words
    assert "Not doubted" in part and part.count("<script>alert(1)</script>") > 6


def test_a_dollar_sign_in_a_phase_is_no_formula():
    html = page.report(findings(history=[history_row("$a_b$ $", 0, 0.5, 0.4, 0.3, "")]))
    assert "$a_b$ $" in html


def test_rows_without_a_training_loss_are_told_and_count_as_no_epoch():
    epochs = [history_row("upper 1", 1, 0.5, 0.4, 0.3, "00:11"), history_row("upper 2", 2, 0.5, 0.4, 0.3, "00:11")]
    fitted, soup = history_row("fitted", 0, None, 0.4, 0.2, "00:01"), history_row("soup", 2, None, 0.3, 0.4, "00:01")
    averaged = page.report(findings(history=[fitted, *epochs, soup], weights_of="the average"))
    assert "2 epochs in figures" in averaged and "A point without a training loss is no epoch" in averaged
    assert "The weights that went out, chosen by their mAP: the average." in averaged
    trained = page.report(findings(history=epochs))
    assert "2 epochs in figures" in trained and "is no epoch" not in trained and "weights that went out" not in trained


def test_without_history_the_report_says_that_nothing_was_trained_by_epochs():
    seen = Page(page.report(findings(history=[])))
    assert "nothing was trained by epochs" in seen.words
    assert "training loss" not in seen.words


def test_a_label_without_positives_is_named_and_left_out():
    truth = TRUTH.copy()
    truth[:, 2] = False
    rows = dict(findings().per_label) | {"Horror": label_row(float("nan"), 0.0, 0.0, 0.0, 0, 0.3, float("nan"))}
    html = page.report(findings(truth=truth, per_label=rows))
    seen = Page(html)
    assert "No poster on the validation side has Horror: nothing is known about it" in seen.words
    assert "Precision-recall curve of Horror" not in html and "Precision-recall curve of Comedy" in html
    assert seen.row("Horror", words.MISSING)[:3] == ["Horror", words.MISSING, words.MISSING]
    assert not re.search(r"\bnan\b", html, re.IGNORECASE)


@pytest.mark.parametrize(("n", "width"), [(0, 2), (1, 1), (2, 3)])
def test_a_report_and_a_card_of_almost_nothing(tmp_path, n, width):
    write_report(small(n, width), tmp_path / "report.html")
    write_card(small(n, width), tmp_path / "README.md")
    seen = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "mAP could not be measured." in seen.words
    assert not re.search(r"\b(nan|None|inf)\b", seen.words)
    assert "model-index" not in front_matter(tmp_path / "README.md")


def test_very_many_labels_keep_the_page_small():
    html = page.report(small(60, 80))
    assert html.count("Precision-recall curve of") == page.CURVES
    assert len(html) < 1_500_000


def test_a_report_that_cannot_be_made_leaves_the_old_one_alone(tmp_path):
    def broken(index):
        raise OSError("disk gone")

    (tmp_path / "report.html").write_text("old", encoding="utf-8")
    with pytest.raises(OSError, match="disk gone"):
        write_report(findings(thumbnails=broken), tmp_path / "report.html")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == "old"


def test_same_findings_same_bytes(html):
    assert page.report(findings()) == html


def test_pictures_are_made_small_and_stay_as_they_were():
    picture = Image.new("RGBA", (1000, 3000), (10, 200, 10, 255))
    uri = exhibits.data_uri(picture, exhibits.THUMBNAIL, quality=70)
    assert picture.size == (1000, 3000) and picture.mode == "RGBA"
    assert uri.startswith("data:image/jpeg;base64,") and len(uri) < 3000


@pytest.mark.parametrize("rounded", [False, True])
def test_area_under_the_drawn_curve_is_average_precision(rounded):
    rng = np.random.default_rng(3)
    truth = rng.uniform(size=400) < 0.2
    score = rng.uniform(size=400) + 0.5 * truth
    score = score.round(1) if rounded else score  # with ties
    recall, precision = plots.precision_recall(truth, score)
    area = np.sum(np.diff(recall) * precision[1:])
    assert area == pytest.approx(average_precision_score(truth, score), abs=1e-12)


def test_best_and_worst_items():
    shown = exhibits.items_to_show(findings(), count=1)
    assert [it.item_id for it in shown["worst"]] == ["tt0000003"]
    assert shown["worst"][0].marks == [("Comedy", "wrong", "0.90"), ("Horror", "missed", "0.10")]
    assert [it.item_id for it in shown["best"]] == ["tt0000002"]
    assert shown["best"][0].marks == [("Comedy", "right", "0.80")]


def test_no_item_is_shown_twice_and_a_missing_picture_is_said():
    shown = exhibits.items_to_show(doubtful(), 6, 2)
    ids = [it.item_id for side in shown.values() for it in side]
    assert len(shown["doubtful"]) == 2 and len(ids) == len(set(ids)) == 8
    assert "no picture" in Page(page.report(findings(thumbnails=None))).words


def test_where_the_table_may_be_wrong_is_shown_item_by_item(tmp_path):
    f = doubtful()
    shown = exhibits.items_to_show(f, 6, 24)["doubtful"]
    assert [it.item_id for it in shown] == ["tt0000004", "tt0000001"]
    assert shown[0].marks == [("Horror", "remove", "0.01"), ("Comedy", "add", "0.99")]
    assert shown[0].typical == {"Horror": "0.60", "Comedy": "0.60"}
    assert shown[1].marks == [("Horror", "add", "0.95"), ("Animation", "listed", "0.90")]
    html = page.report(f)
    seen = Page(html[html.index('<section id="doubts">') : html.index('<section id="training">')])
    assert seen.words.startswith("Where the table may be wrong")
    assert "doubts.csv , in the model folder" in seen.words and "Copy it out of the folder" in seen.words
    assert "Only the 72 validation posters have honest probabilities" in seen.words
    assert "3 listings doubted: 1 listed and given far less than is typical, 2 not listed and given much." in seen.words
    assert "Not doubted" not in seen.words  # every genre is seen
    assert "Horror listed, remove? typical 0.60 0.01" in seen.words
    assert "Horror not listed, add? typical 0.60 0.95" in seen.words
    write_card(f, tmp_path / "README.md")
    assert "has 3 listings of validation posters that the model doubts" in (tmp_path / "README.md").read_text(
        encoding="utf-8"
    )


def test_where_no_listing_stands_out_the_page_says_so(html, tmp_path):
    assert "No listing of a validation poster stands out" in Page(html).words  # too few to see any genre
    write_card(findings(), tmp_path / "README.md")
    assert "doubts.csv" not in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert words.what_is_doubted(findings()) == []
    barely = doubtful(Animation=[0.52, 0.6])
    assert words.what_is_doubted(barely)[-1] == "Not doubted, for the model cannot clearly see them: Animation."


def test_pain_16_accuracy_stands_only_beside_predicting_nothing(html, tmp_path):
    path = tmp_path / "model" / "README.md"
    write_card(findings(), path)
    card = path.read_text(encoding="utf-8")
    for text in (Page(html).words, card):
        assert "Label accuracy at threshold 0.5 is 0.716, but predicting nothing scores 0.556" in text
        for place in re.finditer("accuracy", text, re.IGNORECASE):
            assert "predicting nothing" in text[place.start() - 60 : place.end() + 100]
    head = html[html.index("<header") : html.index("</header>") + 9]
    assert "accuracy" not in head
    bill = Page(head).words
    assert "mAP 0.432 95 %: 0.401 to 0.463 no skill: 0.126" in bill
    assert "macro-F1 0.399 95 %: 0.367 to 0.430 no skill: 0.057" in bill


def test_pain_19_mistakes_are_counted_by_label_and_by_pair():
    decisions = PROBABILITIES >= THRESHOLDS
    f = findings()
    for row in page.label_rows(f):
        j = LABELS.index(row["label"])
        t, d = TRUTH[:, j], decisions[:, j]
        assert [row[k] for k in ("right", "wrong", "missed", "neither")] == [
            sum(t & d),
            sum(~t & d),
            sum(t & ~d),
            sum(~t & ~d),
        ]
        assert row["right"] / (row["right"] + row["wrong"]) == precision_score(t, d)
        assert row["right"] / (row["right"] + row["missed"]) == recall_score(t, d)
        assert 2 * row["right"] / (2 * row["right"] + row["wrong"] + row["missed"]) == pytest.approx(f1_score(t, d))
    assert words.confusions(f, 5) == [("Horror", "Comedy", 1)]  # item 3: horror, given comedy
    assert words.confusions(findings(misses=np.diag([9, 9, 9])), 5) == []
    seen = Page(page.report(f))
    assert ["Horror", "·", "1", "", "1"] in seen.rows
    assert ["Comedy", "·", "", "·", "2"] in seen.rows
    assert "Horror missed, Comedy given: 1 poster" in seen.words


@pytest.mark.parametrize(
    ("value", "width", "baseline", "says"),
    [
        (
            0.4,
            0.05,
            0.1,
            "mAP is 0.400 (95 % interval 0.350 to 0.450); the best without skill (prior) scores 0.100,"
            " "
            "so the model reaches 4.0 times that.",
        ),
        (0.4, 0.05, 0.37, "which lies inside the interval: this measurement shows no skill."),
        (0.3, 0.05, 0.4, "the model falls short of that."),
        (0.4, None, 0.1, "mAP is 0.400; the best without skill (prior) scores 0.100"),
        (float("nan"), None, 0.1, "mAP could not be measured."),
    ],
)
def test_the_headline_says_honestly_how_far_above_no_skill(value, width, baseline, says):
    base = {name: metrics(*[baseline] * 4) for name in ("none", "top2", "prior")}
    assert says in words.verdict(findings(metrics=metrics(*[value] * 4, width=width), baselines=base))[0]


@pytest.mark.parametrize(
    ("ci95", "prevalence", "support", "kind"),
    [
        ([0.6, 0.7], 0.1, 150, "seen"),
        ([0.146, 0.3], 0.1, 150, "seen"),  # a twentieth of the way from 0.1 to 1 is 0.145
        ([0.144, 0.3], 0.1, 150, "barely"),
        ([0.1, 0.3], 0.1, 150, "chance"),
        ([0.05, 0.3], 0.1, 150, "chance"),
        ([0.6, 0.7], 0.1, 20, "seen"),
        ([0.6, 0.7], 0.1, 19, "unknown"),
        (None, 0.1, 150, "unknown"),
        ([float("nan"), 0.7], 0.1, 150, "unknown"),
        ([1.0, 1.0], 1.0, 150, "chance"),  # all items have it: nothing to tell
    ],
)
def test_what_can_be_seen_is_told_by_the_intervals_lower_end(ci95, prevalence, support, kind):
    assert sight(ci95, prevalence, support) == kind


def test_what_the_model_can_and_cannot_see_is_said_with_intervals(tmp_path):
    assert words.what_it_sees(doubtful()) == [
        "It can see all 3 genres (the 95 % interval of average precision lies clearly above what a random order scores, in "
        "brackets): Animation 0.767 to 0.858 (0.500), Comedy 0.657 to 0.790 (0.500) and Horror 0.567 to 0.702 (0.500)."
    ]
    mixed = doubtful(Comedy=[0.4, 0.6], Horror=[0.51, 0.7])
    assert words.what_it_sees(mixed) == [
        "It can see 1 of 3 genres (the 95 % interval of average precision lies clearly above what a random order scores, in "
        "brackets): Animation 0.767 to 0.858 (0.500).",
        "Barely above chance: Horror 0.510 to 0.700 (0.500).",
        "Not told from chance, which the interval reaches: Comedy 0.400 to 0.600 (0.500).",
    ]
    assert "Not to be relied on for Horror and Comedy: not shown to be clearly better than chance." in words.limits(
        mixed
    )
    write_card(mixed, tmp_path / "README.md")
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    for row in (r"| Animation .*\| yes \|", r"| Horror .*\| barely \|", r"| Comedy .*\| no \|"):
        assert re.search(row.replace("| ", r"\| ", 1), card)
    assert "* Not told from chance, which the interval reaches: Comedy 0.400 to 0.600 (0.500)." in card


def test_what_is_seen_is_said_rightly_of_one_label_of_none_and_of_too_few():
    few = words.what_it_sees(findings())
    assert few[0].startswith("It is not shown to see any of its 3 genres (that the 95 % interval")
    assert few[1:] == [
        "Too few posters to know (fewer than 20): Animation 0.767 to 0.858 (0.333; 2 posters), Horror 0.567 to 0.702 (0.333; "
        "2 posters) and Comedy 0.657 to 0.790 (0.667; 4 posters)."
    ]
    f = doubtful(only=1)
    assert words.what_it_sees(f)[0].startswith("It can see its one genre (the 95 % interval")
    nothing = np.zeros((0, 0), bool)
    empty = {"labels": [], "thresholds": [], "truth": nothing, "probabilities": nothing, "decisions": nothing}
    none = findings(**empty, misses=None, item_ids=[], titles=[], per_label={}, thumbnails=None)
    assert words.what_it_sees(none) == [] and words.limits(none) == ["A limit of the caller's."]
    many = small(2000, 30)
    rows = {label: label_row(0.9 - j / 1000, 0.5, 0.5, 0.5, 1000, 0.5, 0.01) for j, label in enumerate(many.labels)}
    said = words.what_it_sees(replace(many, per_label=rows))[0]
    assert said.startswith("It can see all 30 labels") and " and 10 more." in said and said.count(" to ") == 20


def test_overlapping_intervals_are_said_not_ranked():
    overlapping = doubtful(Animation=[0.7, 0.8], Comedy=[0.65, 0.75], Horror=[0.6, 0.72])
    assert words.what_it_sees(overlapping)[0].endswith(
        " The intervals of Animation and Horror overlap: the order is not settled by this measurement."
    )
    assert "not settled" not in words.what_it_sees(doubtful())[0]


def test_pairs_confused_by_look_are_told_from_those_that_are_merely_common():
    misses = np.outer([60, 40, 20, 10], [60, 40, 20, 10]) // 10  # commonest with commonest: frequency explains it all
    labels = ["Animation", "Comedy", "Drama", "Horror"]
    wide = {"labels": labels, "truth": np.zeros((6, 4), bool), "probabilities": np.zeros((6, 4))}
    wide |= {"decisions": np.zeros((6, 4), bool), "thresholds": np.zeros(4)}
    assert words.confused_by_look(findings(**wide, misses=misses), 9) == []
    misses[3, 2] += 60
    (missed, given, n, expected), *_ = words.confused_by_look(findings(**wide, misses=misses), 9)
    assert (missed, given, n) == ("Horror", "Drama", 80) and 20 < expected < 60
    said = words.what_it_confuses(findings(**wide, misses=misses))
    assert said[0].startswith("The commonest mistakes, in posters: Comedy given where Animation was missed (240), ")
    assert said[1].startswith("Confused more often than their frequency explains: Drama given for Horror (80, ")
    assert words.what_it_confuses(findings()) == [
        "The commonest mistake, in posters: Comedy given where Horror was missed (1)."
    ]
    assert words.what_it_confuses(findings(misses=None)) == []


def test_metrics_table_for_a_terminal():
    f = findings()
    assert metrics_table(f) == metrics_table(f.metrics, f.baselines)
    assert metrics_table(f).splitlines() == [
        "            model   95 % interval  nothing  two commonest  prior",
        "----------------------------------------------------------------",
        "mAP         0.432  0.401 to 0.463    0.123          0.124  0.126",
        "macro-F1    0.399  0.367 to 0.430    0.000          0.057  0.034",
        "micro-F1    0.488  0.456 to 0.519    0.000          0.368  0.301",
        "samples-F1  0.476  0.445 to 0.508    0.000          0.346  0.299",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"truth": TRUTH[:, :2]}, r"truth: expected shape \(6, 3\) for 6 items and 3 labels, got \(6, 2\)"),
        ({"thresholds": np.zeros(2)}, r"thresholds: expected shape \(3,\)"),
        ({"misses": np.zeros((2, 3))}, r"misses: expected shape \(3, 3\)"),
        ({"titles": ["one"]}, r"titles: expected 6, one an item \('' where unknown\), got 1"),
    ],
)
def test_arrays_of_the_wrong_shape_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        findings(**changes)


def test_neither_importing_nor_writing_touches_torch_pandas_or_pyplot(tmp_path):
    code = """
import sys
import lobbycard.report
heavy = {"matplotlib", "jinja2", "yaml", "pandas", "torch", "fastai", "sklearn"} & set(sys.modules)
assert not heavy, heavy
import matplotlib
before = matplotlib.rcParams.copy()  # reading them one by one would choose a backend
import pickle
findings = pickle.load(sys.stdin.buffer)
lobbycard.report.write_report(findings, sys.argv[1] + "/report.html")
lobbycard.report.write_card(findings, sys.argv[1] + "/README.md")
assert matplotlib.rcParams.copy() == before
heavy = {"matplotlib.pyplot", "torch", "fastai", "pandas", "sklearn"} & set(sys.modules)
assert not heavy, heavy
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(command, input=pickle.dumps(findings()), check=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["README.md", "report.html"]


def front_matter(path) -> dict:
    head = path.read_text(encoding="utf-8").split("---\n")
    assert head[0] == ""
    return yaml.safe_load(head[1])


def test_card_front_matter_and_tables(tmp_path):
    path = tmp_path / "tiny" / "README.md"
    write_card(findings(labels=["Animation", "Comedy", "Hor|ror*"], name="a: 'b' #c"), path)
    matter = front_matter(path)
    assert matter["license"] == "apache-2.0"
    assert matter["pipeline_tag"] == "image-classification"
    assert "poster-genres" in matter["tags"]
    (result,) = matter["model-index"][0]["results"]
    assert matter["model-index"][0]["name"] == "a: 'b' #c"
    assert [(m["name"], m["value"]) for m in result["metrics"]] == [
        ("mAP (validation)", 0.4321),
        ("macro-F1 (validation)", 0.3987),
        ("micro-F1 (validation)", 0.4876),
        ("samples-F1 (validation)", 0.4765),
    ]
    text = path.read_text(encoding="utf-8")
    assert "| mAP | **0.432** | 0.401 to 0.463 | 0.123 | 0.124 | 0.126 |\n" in text
    assert "| Animation | 0.812 | 0.767 to 0.858 | 0.712 | 0.612 | 0.512 | 0.500 | 2 | 0.333 | too few |\n" in text
    assert "| Hor\\|ror\\* | " + words.MISSING in text
    assert "* A limit of the caller's.\n" in text
    assert "* Not to be relied on for Animation, Comedy and Hor\\|ror\\*: not shown to be clearly better" in text
    assert "python -m lobbycard predict --model tiny posters/ --out preds.csv" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_card_is_one_the_hub_reads(tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    write_card(findings(), tmp_path / "README.md")
    card = hub.ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "onnx"
    assert [r.metric_value for r in card.data.eval_results] == [0.4321, 0.3987, 0.4876, 0.4765]


def test_the_cards_onnxruntime_snippet_runs_as_printed(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    write_card(findings(), tmp_path / "README.md")
    (snippet,) = re.findall(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    # logits = the mean of each colour: of a poster of one colour, known
    nodes = [onnx.helper.make_node("ReduceMean", ["pixels"], ["logits"], axes=[2, 3], keepdims=0)]
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "means",
        [onnx.helper.make_tensor_value_info("pixels", kind, ["n", 3, 8, 6])],
        [onnx.helper.make_tensor_value_info("logits", kind, ["n", 3])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    about = {
        "labels": LABELS,
        "thresholds": dict.fromkeys(LABELS, 0.5),
        "input": {"size": [8, 6], "mean": [0.5] * 3, "std": [0.25] * 3},
    }
    (tmp_path / "model.json").write_text(json.dumps(about), encoding="utf-8")
    Image.new("RGBA", (60, 80), (255, 0, 191, 255)).save(tmp_path / "poster.png")
    (tmp_path / "poster.png").rename(tmp_path / "poster.jpg")
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    assert done.stdout.splitlines() == ["Animation 0.88", "Horror 0.73"]  # sigmoid of 2, -2 and 0.996


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_page_fits_its_window_without_sideways_scrolling(tmp_path, width, scheme):
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium here")
    long = "Supercalifragilisticexpialidocious" * 4
    write_report(findings(titles=[long] * 6, command=long, notes=[long], machine=long), tmp_path / "report.html")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page_ = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        asked, complaints = [], []
        page_.on("request", lambda request: asked.append(request.url))
        page_.on("console", lambda message: complaints.append(message.text))
        page_.goto((tmp_path / "report.html").as_uri())
        page_.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page_.evaluate("document.documentElement.scrollWidth") == width
        assert complaints == []
        assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
        contrast = page_.evaluate(CONTRAST)
        assert min(contrast.values()) >= 4.5, contrast
        browser.close()


# WCAG 2.2, 1.4.3: contrast of the text colours against the page's ground, in the theme shown.
CONTRAST = """() => {
  const light = text => { const [r, g, b] = text.match(/[0-9.]+/g).slice(0, 3).map(Number).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b }
  const ground = light(getComputedStyle(document.body).backgroundColor), found = {}
  for (const name of ['ink', 'soft', 'model', 'second']) {
    const probe = document.createElement('i')
    probe.style.color = `var(--${name})`
    document.body.append(probe)
    const text = light(getComputedStyle(probe).color)
    found[name] = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05)
  }
  return found
}"""
