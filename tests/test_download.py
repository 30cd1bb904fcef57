import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from lobbycard.catalog.download import (
    FINAL,
    MANIFEST_COLUMNS,
    RETRYABLE,
    DownloadOptions,
    coverage,
    download,
    format_coverage,
    read_manifest,
)
from lobbycard.catalog.image import load_poster
from lobbycard.catalog.manifest import Entry, open_journal, read_entries
from lobbycard.catalog.transport import parse_retry_after
from lobbycard.errors import InputError
from tests.bad_server import BadServer, picture

QUICK = DownloadOptions(connections=4, timeout=2, deadline=4, tries=2, backoff=0.01)


@pytest.fixture
def server():
    with BadServer() as server:
        yield server


def table(*urls: str) -> pd.DataFrame:
    return pd.DataFrame({"file": [f"tt{i:07}.jpg" for i in range(len(urls))], "url": list(urls)})


def fetch(folder, *urls, options=QUICK, **kwargs):
    return download(table(*urls), folder, options, say=lambda line: None, **kwargs)


def pictures(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix == ".jpg" and not path.name.startswith(".")}


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# ---- one status for each way to fail


@pytest.mark.parametrize(
    ("path", "status", "code", "words"),
    [
        ("/code/404/a", "missing", 404, "HTTP 404"),
        ("/code/410/a", "missing", 410, "HTTP 410"),
        ("/code/401/a", "refused", 401, "HTTP 401"),
        ("/code/403/a", "refused", 403, "HTTP 403"),
        ("/code/451/a", "refused", 451, "HTTP 451"),
        ("/code/400/a", "refused", 400, "HTTP 400"),
        ("/code/500/a", "server_error", 500, "HTTP 500"),
        ("/code/503/a", "server_error", 503, "HTTP 503"),
        ("/unavailable/0/a", "rate_limited", 503, "HTTP 503"),
        ("/wait/0/a", "rate_limited", 429, "HTTP 429"),
        ("/wait//a", "rate_limited", 429, "HTTP 429"),
        ("/html/a", "not_image", 200, "but a web page"),
        ("/empty/a", "not_image", 200, "an empty file"),
        ("/cut/a", "truncated", 200, "the connection ended early"),
        ("/cutchunk/a", "truncated", 200, "the connection ended early"),
        ("/half/a", "truncated", 200, "cut off or damaged"),
        ("/heavy/a", "too_large", 200, "1,000,000,000,000 bytes announced, at most 20,000,000"),
        ("/bomb/a", "too_large", 200, "pixels"),
        ("/hang/a", "timed_out", None, "nothing came for 0.3 s"),
        ("/drip/a", "timed_out", 200, "bytes came in 0.5 s"),
        ("/reset/a", "unreachable", None, "reset"),
        ("/flat/a", "placeholder", 200, "one flat colour"),
        ("/tiny/a", "placeholder", 200, "31 x 90 pixels, expected 32"),
        ("/toplaceholder/a", "placeholder", 200, "redirected to the placeholder"),
        ("/tofile/a", "bad_url", None, "begins with http:// or https://, got file:"),
        ("/to/6/a", "refused", 302, "more than 5 redirects"),
    ],
)
def test_pain_14_each_failure_has_its_own_status(server, tmp_path, path, status, code, words):
    options = DownloadOptions(timeout=0.3 if "hang" in path else 5, deadline=0.5, tries=1, backoff=0.01)
    row = fetch(tmp_path, server.url + path, options=options).iloc[0]
    assert (row["status"], row["http_code"] if code else None) == (status, code)
    assert words.lower() in row["message"].lower()
    assert status in RETRYABLE | FINAL
    assert pictures(tmp_path) == set()


@pytest.mark.parametrize(
    ("url", "status", "words"),
    [
        ("", "no_url", "no URL"),
        ("file:///etc/hostname", "bad_url", "expected a URL that begins with http"),
        ("N/A", "bad_url", "expected a URL that begins with http"),
        ("http:///tt1.jpg", "bad_url", "expected a host"),
        ("http://host:port/a.jpg", "bad_url", "port"),
        ("http://[::1/a.jpg", "bad_url", "IPv6"),
        (f"http://{'a' * 70}.example/a.jpg", "bad_url", ""),
        ("http://h.example/i/nopicture/large/film-184890147._CB379391879_.png", "placeholder", "URL is that of"),
        ("http://h.example/no_image.png", "placeholder", "URL is that of"),
        ("http://h.example/poster-not-available.jpg", "placeholder", "URL is that of"),
    ],
)
def test_urls_that_are_never_asked_for(tmp_path, url, status, words):
    row = fetch(tmp_path, url).iloc[0]
    assert (row["status"], row["message"].count(words) > 0) == (status, True)


@pytest.mark.parametrize("name", ["casino_poster.jpg", "kimono-image.jpg", "domino_photo.jpg", "a.jpg?or=noimage"])
def test_titles_that_only_look_like_placeholders_are_fetched(server, tmp_path, name):
    assert fetch(tmp_path, f"{server.url}/good/{name}").at[0, "status"] == "ok"


def test_a_refused_connection_is_unreachable_and_a_dead_host_is_soon_left_alone(tmp_path):
    host = f"http://127.0.0.1:{closed_port()}"
    options = DownloadOptions(connections=4, tries=4, backoff=0.001)
    manifest = fetch(tmp_path, *(f"{host}/{i}" for i in range(200)), options=options)
    assert set(manifest["status"]) == {"unreachable"}
    assert manifest["tries"].sum() < 50 + 4 * 4
    assert "has not answered 50 requests in a row" in manifest["message"].iloc[-1]


def test_an_endless_body_is_cut_at_max_bytes(server, tmp_path):
    row = fetch(tmp_path, f"{server.url}/endless/a", options=DownloadOptions(max_bytes=200_000)).iloc[0]
    assert (row["status"], row["message"]) == ("too_large", "more than 200,000 bytes came")


def test_a_good_row_says_everything(server, tmp_path):
    row = fetch(tmp_path, f"{server.url}/good/a").iloc[0]
    body = (tmp_path / "tt0000000.jpg").read_bytes()
    assert body == picture("a")
    assert tuple(row) == (
        "tt0000000.jpg", f"{server.url}/good/a", "ok", 200, len(body), 60, 90,
        hashlib.sha256(body).hexdigest(), 1, "",
    )  # fmt: skip
    assert tuple(row.index) == MANIFEST_COLUMNS
    pd.testing.assert_frame_equal(read_manifest(tmp_path), fetch(tmp_path, f"{server.url}/good/a"))
    assert server.headers["User-Agent"].startswith("lobbycard/")


@pytest.mark.parametrize("path", ["/to/5/a", "/chunked/a", "/2/code/500/a", "/2/cut/a", "/2/cutchunk/a", "/2/half/a",
                                  "/2/reset/a", "/2/wait/0/a", "/2/unavailable/0/a"])  # fmt: skip
def test_what_passes_is_waited_out(server, tmp_path, path):
    row = fetch(tmp_path, server.url + path, options=DownloadOptions(tries=3, backoff=0.01)).iloc[0]
    assert (row["status"], row["tries"]) == ("ok", 3 if path[1] == "2" else 1)
    load_poster(tmp_path / row["file"])


def test_what_is_final_is_asked_for_once_and_what_may_pass_as_often_as_allowed(server, tmp_path):
    paths = ["/code/404/a", "/code/403/a", "/html/a", "/code/500/a", "/half/a"]
    manifest = fetch(tmp_path, *(server.url + path for path in paths), options=DownloadOptions(tries=3, backoff=0))
    assert list(manifest["tries"]) == [1, 1, 1, 3, 3] == [server.hits[path] for path in paths]


# ---- manners


def test_connections_are_limited_and_used_again(server, tmp_path):
    server.crowd = 4
    urls = [f"{server.url}/crowd/{i}" for i in range(40)] + [f"{server.url}/code/404/{i}" for i in range(20)]
    manifest = fetch(tmp_path, *urls, options=DownloadOptions(connections=4))
    assert list(manifest["status"].value_counts()) == [40, 20]
    assert server.busy_peak == 4
    assert server.open_peak == server.sockets == 4  # for 60 requests, 404 pages among them


def test_pain_15_rate_limit_is_never_recorded_as_missing(server, tmp_path):
    urls = [f"{server.url}/wait/3600/{i}" for i in range(30)]
    first = fetch(tmp_path, *urls)
    assert set(first["status"]) == {"rate_limited"}
    assert "asks to wait 3600 s, more than 120" in first["message"].iloc[-1]
    assert len(server.requests) <= QUICK.connections, "a host that asks for an hour is left alone for this run"
    second = fetch(tmp_path, *(f"{server.url}/good/{i}" for i in range(30)))
    assert set(second["status"]) == {"ok"}


def test_pain_15_one_429_pauses_every_thread_of_the_host(server, tmp_path):
    urls = [f"{server.url}/1/wait/1/first"] + [f"{server.url}/good/{i}" for i in range(60)]
    manifest = fetch(tmp_path, *urls)
    assert set(manifest["status"]) == {"ok"}
    start = server.requests[0][0]
    # Each other thread may have one request under way when the 429 comes; then nobody asks for a second.
    early = [path for at, path in server.requests if at - start < 1.0]
    assert len(early) <= 2 * QUICK.connections
    assert server.hits["/1/wait/1/first"] == 2


def test_retry_after_is_honoured_as_a_date_too(server, tmp_path):
    row = fetch(tmp_path, f"{server.url}/later/3600/a").iloc[0]
    assert (row["status"], row["http_code"]) == ("rate_limited", 429)
    assert "asks to wait 3599 s" in row["message"] or "asks to wait 3600 s" in row["message"]
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert [parse_retry_after(value) for value in ("7", "soon", "", None)] == [7, None, None, None]


def test_a_host_that_never_stops_refusing_is_left_alone(server, tmp_path):
    manifest = fetch(
        tmp_path,
        *(f"{server.url}/wait/0/{i}" for i in range(200)),
        options=DownloadOptions(connections=2, tries=4, backoff=0.001),
    )
    assert set(manifest["status"]) == {"rate_limited"}
    assert "still refuses after 6 pauses" in manifest["message"].iloc[-1]
    assert len(server.requests) < 30


# ---- placeholders


def test_one_picture_behind_many_urls_is_a_placeholder(server, tmp_path):
    urls = [f"{server.url}/same/{i}" for i in range(4)]
    assert set(fetch(tmp_path, *urls)["status"]) == {"ok"}  # four films may well share their art
    urls += [f"{server.url}/same/4", f"{server.url}/good/other"]
    manifest = fetch(tmp_path, *urls)
    assert list(manifest["status"]) == ["placeholder"] * 5 + ["ok"]
    assert manifest.at[0, "message"] == "5 different URLs gave this very file"
    assert pictures(tmp_path) == {"tt0000005.jpg"}
    before = len(server.requests)
    assert list(fetch(tmp_path, *urls)["status"]) == ["placeholder"] * 5 + ["ok"]
    assert len(server.requests) == before


def test_items_that_share_one_url_keep_their_picture(server, tmp_path):
    assert set(fetch(tmp_path, *[f"{server.url}/good/season"] * 8)["status"]) == {"ok"}


# ---- run again


def test_only_what_may_still_succeed_is_tried_again(server, tmp_path):
    paths = ["/good/a", "/code/404/b", "/html/c", "/2/code/500/d", "/2/cut/e", "/2/wait/0/f", "/flat/g"]
    urls = [server.url + path for path in paths]
    first = fetch(tmp_path, *urls)
    assert list(first["status"]) == [
        "ok", "missing", "not_image", "server_error", "truncated", "rate_limited", "placeholder",
    ]  # fmt: skip
    before = server.hits
    second = fetch(tmp_path, *urls)
    assert list(second["status"]) == ["ok", "missing", "not_image", "ok", "ok", "ok", "placeholder"]
    assert {path for path, n in server.hits.items() if n > before[path]} == {paths[3], paths[4], paths[5]}
    fetch(tmp_path, *urls, options=DownloadOptions(retry_permanent=True))
    assert server.hits["/code/404/b"] == 2 and server.hits["/good/a"] == 1


def test_a_changed_url_is_tried_and_the_old_picture_never_stands_for_it(server, tmp_path):
    fetch(tmp_path, f"{server.url}/good/old", f"{server.url}/code/404/x")
    manifest = fetch(tmp_path, f"{server.url}/code/404/new", f"{server.url}/good/new")
    assert list(manifest["status"]) == ["missing", "ok"]
    assert pictures(tmp_path) == {"tt0000001.jpg"}


def test_a_picture_is_replaced_as_a_whole_and_never_written_over(server, tmp_path):
    fetch(tmp_path, f"{server.url}/good/old")
    os.link(tmp_path / "tt0000000.jpg", tmp_path / "reader")  # as one who has the old file open
    fetch(tmp_path, f"{server.url}/good/new")
    assert (tmp_path / "tt0000000.jpg").read_bytes() == picture("new")
    assert (tmp_path / "reader").read_bytes() == picture("old")


def test_a_picture_that_vanished_or_changed_its_size_is_fetched_again(server, tmp_path):
    urls = [f"{server.url}/good/{i}" for i in range(3)]
    fetch(tmp_path, *urls)
    (tmp_path / "tt0000000.jpg").unlink()
    (tmp_path / "tt0000001.jpg").write_bytes(picture("1")[:-40])
    assert set(fetch(tmp_path, *urls)["status"]) == {"ok"}
    assert [server.hits[f"/good/{i}"] for i in range(3)] == [2, 2, 1]
    assert (tmp_path / "tt0000001.jpg").read_bytes() == picture("1")


def test_the_users_own_pictures_are_checked_and_left_alone(server, tmp_path):
    urls = [f"{server.url}/good/a", "", f"{server.url}/good/c", f"{server.url}/code/404/d"]
    for i in (0, 1, 3):
        (tmp_path / f"tt000000{i}.jpg").write_bytes(picture("mine"))
    (tmp_path / "tt0000002.jpg").write_bytes(picture("mine")[:-40])  # no use: fetched
    for _ in range(2):
        manifest = fetch(tmp_path, *urls)
        assert list(manifest["status"]) == ["ok"] * 4
        assert list(manifest["tries"]) == [0, 0, 1, 0]
    assert server.hits == {"/good/c": 1}
    assert (tmp_path / "tt0000000.jpg").read_bytes() == picture("mine")
    (tmp_path / "tt0000000.jpg").write_bytes(picture("mine, a better scan", (90, 120)))
    assert fetch(tmp_path, *urls).at[0, "width"] == 90
    assert server.hits == {"/good/c": 1}


def test_rows_of_other_tables_stay_in_the_manifest(server, tmp_path):
    fetch(tmp_path, f"{server.url}/good/a", f"{server.url}/good/b")
    assert list(fetch(tmp_path, f"{server.url}/good/a")["file"]) == ["tt0000000.jpg"]
    assert len(read_manifest(tmp_path)) == 2


def test_a_torn_journal_line_is_passed_over(server, tmp_path):
    urls = [f"{server.url}/good/{i}" for i in range(3)]
    whole = fetch(tmp_path, *urls)
    lines = (tmp_path / "manifest.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "manifest.csv").unlink()
    # A line with an open quote in the middle, as a killed run and the next one leave it, and a torn one at the end.
    (tmp_path / "manifest.journal.csv").write_text(
        lines[1] + 'tt0000009.jpg,"http://h/a, b\n' + lines[2] + lines[3][:-20], encoding="utf-8"
    )
    assert list(read_manifest(tmp_path)["file"]) == ["tt0000000.jpg", "tt0000001.jpg"]
    manifest = fetch(tmp_path, *urls)
    assert list(manifest["tries"]) == [1, 1, 0]  # the third was found on disk and decoded, not fetched
    assert list(manifest["sha256"]) == list(whole["sha256"])
    assert sum(server.hits.values()) == 3
    assert not (tmp_path / "manifest.journal.csv").exists()


def test_a_new_journal_line_never_continues_a_torn_one(tmp_path):
    (tmp_path / "manifest.journal.csv").write_bytes(b'\0tt0000001.jpg,"http://h/a')
    entry = Entry("tt0000002.jpg", "http://h/b", "unreachable", tries=4, message="two\nlines")
    with open_journal(tmp_path) as note:
        note(entry)
    assert read_entries(tmp_path) == {"tt0000002.jpg": entry._replace(message="two lines")}


def test_messages_and_urls_with_commas_quotes_and_other_letters_come_back(tmp_path):
    urls = ['http://host:"x,y"/a', "N/A, «né»", "ftp://h/a\nb"]
    manifest = fetch(tmp_path, *urls)
    again = read_manifest(tmp_path)
    pd.testing.assert_frame_equal(manifest, again)
    assert list(again["url"]) == [*urls[:2], "ftp://h/a b"]


def test_leftovers_of_killed_runs_are_swept_but_not_those_of_a_run_beside_us(tmp_path):
    old, young = tmp_path / ".tt1.jpg.0a1b2c3d.part", tmp_path / ".tt2.jpg.0a1b2c3d.part"
    for path in (old, young):
        path.write_bytes(b"half a picture")
    os.utime(old, (time.time() - 3600,) * 2)
    fetch(tmp_path, "")
    assert (old.exists(), young.exists()) == (False, True)


RUN = """
import sys
from pathlib import Path
import pandas as pd
from lobbycard.catalog.download import DownloadOptions, download
url, folder, n = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
frame = pd.DataFrame({"file": [f"tt{i:07}.jpg" for i in range(n)], "url": [f"{url}/good/{i}" for i in range(n)]})
download(frame, folder, DownloadOptions(connections=4, timeout=5))
"""


def start_run(server, folder: Path, n: int) -> subprocess.Popen:
    # A shell's background job ignores SIGINT, and its children inherit that: here Ctrl-C is to be Ctrl-C.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + RUN
    root = Path(__file__).parent.parent
    return subprocess.Popen([sys.executable, "-c", program, server.url, str(folder), str(n)], cwd=root,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip


def stop_run_at(server, process: subprocess.Popen, count: int, how) -> None:
    """Ends the process as soon as the server has given out `count` more pictures."""
    goal = server.served + count
    reached = threading.Event()
    server.when_served = lambda served: served >= goal and not reached.is_set() and (reached.set(), how(process))
    assert reached.wait(30), process.communicate(timeout=5)


def test_killed_at_any_moment_nothing_half_is_used_and_nothing_fetched_twice(server, tmp_path):
    n, kills, on_disk = 150, (1, 17, 40), set()
    for count in kills:
        before = server.hits
        process = start_run(server, tmp_path, n)
        stop_run_at(server, process, count, lambda process: process.kill())
        assert process.wait(10) != 0
        again = {f"tt{int(path.rpartition('/')[2]):07}.jpg" for path in server.hits - before}
        assert not again & on_disk, "fetched although it was on disk"
        on_disk = pictures(tmp_path)
        for name in on_disk:
            load_poster(tmp_path / name)
    before = server.hits
    process = start_run(server, tmp_path, n)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "150 of 150 pictures are there" in out
    assert not {f"tt{int(path.rpartition('/')[2]):07}.jpg" for path in server.hits - before} & on_disk
    assert sum(server.hits.values()) <= n + 4 * len(kills)
    manifest = read_manifest(tmp_path)
    assert sorted(manifest["file"]) == sorted(pictures(tmp_path)) == [f"tt{i:07}.jpg" for i in range(n)]
    assert set(manifest["status"]) == {"ok"}
    assert all((tmp_path / f"tt{i:07}.jpg").read_bytes() == picture(str(i)) for i in range(n))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_leaves_a_whole_manifest(server, tmp_path):
    process = start_run(server, tmp_path, 400)
    stop_run_at(server, process, 20, lambda process: process.send_signal(signal.SIGINT))
    _, err = process.communicate(timeout=20)
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert not (tmp_path / "manifest.journal.csv").exists()
    manifest = read_manifest(tmp_path)
    assert 20 - 4 <= len(manifest) < 400 and set(manifest["status"]) == {"ok"}
    assert set(manifest["file"]) == pictures(tmp_path)


def test_two_processes_may_share_a_folder(server, tmp_path):
    runs = [start_run(server, tmp_path, 120) for _ in range(2)]
    for process in runs:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    manifest = read_manifest(tmp_path)
    assert len(manifest) == 120 and set(manifest["status"]) == {"ok"}
    assert all((tmp_path / f"tt{i:07}.jpg").read_bytes() == picture(str(i)) for i in range(120))


# ---- what is said


def test_the_summary_counts_every_status_and_says_what_may_still_succeed(server, tmp_path):
    lines = []
    paths = ["/good/a", "/good/b", "/code/404/a", "/code/404/b", "/code/500/a"]
    download(table(*(server.url + path for path in paths)), tmp_path, QUICK, say=lines.append)
    assert lines[0] == "  5 pictures: 0 settled before, 5 to fetch or check"
    first, *rest = lines[-1].splitlines()
    assert first.startswith("  2 of 5 pictures are there (")
    assert rest == ["    missing            2", "    server_error       1  may succeed on another run"]


def test_progress_is_told_of_every_picture(server, tmp_path):
    told = []

    class Bar:
        def update(self, n):
            told.append(n)

        def set_postfix_str(self, text):
            told.append(text)

    @contextmanager
    def progress(total, desc):
        told.append(total)
        yield Bar()

    fetch(tmp_path, f"{server.url}/good/a", f"{server.url}/code/404/a", progress=progress)
    assert told[0] == 2 and told.count(1) == 2 and "1 missing" in told


def test_pain_14_coverage_shows_which_labels_lost_most(server, tmp_path):
    frame = table(f"{server.url}/good/a", f"{server.url}/code/404/b", f"{server.url}/good/c")
    frame["labels"] = [("Drama",), ("Drama", "Western"), ("Comedy", "Drama")]
    rows = coverage(frame, download(frame, tmp_path, QUICK, say=lambda line: None))
    assert rows.to_dict("records") == [
        {"label": "Western", "items": 1, "have": 0, "share": 0.0},
        {"label": "Drama", "items": 3, "have": 2, "share": 2 / 3},
        {"label": "Comedy", "items": 1, "have": 1, "share": 1.0},
    ]
    pd.testing.assert_frame_equal(rows, coverage(frame, {"tt0000000.jpg", "tt0000002.jpg"}))
    assert format_coverage(rows).splitlines() == [
        "  label      items     have    share",
        "  Western        1        0    0.0 %",
        "  Drama          3        2   66.6 %",
        "  Comedy         1        1  100.0 %",
    ]
    assert coverage(frame.iloc[:0], set()).empty


# ---- what the user can put right


def test_a_manifest_that_is_none_is_not_overwritten(tmp_path):
    (tmp_path / "manifest.csv").write_text("name,price\na,1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"manifest\.csv: expected the columns file,url,.* found name,price; move"):
        fetch(tmp_path, "http://127.0.0.1/a")
    assert (tmp_path / "manifest.csv").read_text(encoding="utf-8") == "name,price\na,1\n"


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "posters").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"posters: expected a folder that can be written to, got: .*choose another"):
        fetch(tmp_path / "posters", "http://127.0.0.1/a")


@pytest.mark.parametrize("name", ["../tt1.jpg", "a/b.jpg", "a\\b.jpg", ".hidden.jpg", ""])
def test_a_file_name_cannot_leave_the_folder(tmp_path, name):
    with pytest.raises(InputError, match=r"expected a plain file name such as tt0084058\.jpg, got"):
        download(pd.DataFrame({"file": [name], "url": [""]}), tmp_path)


@pytest.mark.parametrize("setting", [{"connections": 0}, {"timeout": -1}, {"tries": 0}, {"backoff": -0.1}])
def test_options_that_cannot_be_meant(setting):
    with pytest.raises(InputError, match=f"{next(iter(setting))}: expected .* got {next(iter(setting.values()))}"):
        DownloadOptions(**setting)
