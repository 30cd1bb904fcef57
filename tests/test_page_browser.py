"""The page as people use it: real Chromium against the really launched app. Screenshots are kept where LOBBYCARD_SHOTS says."""

import csv
import os
import shutil
import time
from pathlib import Path

import pytest

from app_gradio import GradioPredictor
from lobbycard.poster.answers import Choice

sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no chromium here", allow_module_level=True)

CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
SERIOUS = ("serious", "critical")
DROP, DROPS = "#drop input[type=file]", "#drops input[type=file]"


@pytest.fixture(scope="module")
def predictor(trained):
    return GradioPredictor(trained.config.out, "onnx")


@pytest.fixture(scope="module")
def pictures(drawn, predictor):
    """Posters to which the small model denies some genre, so that the page has something under "all"."""
    denied = [
        path
        for path in sorted((drawn / "images").glob("*.jpg"))
        if len(predictor.predict(path).labels) < len(predictor.labels)
    ]
    assert len(denied) >= 9, "the small model gives nearly everything to everyone"
    return denied


@pytest.fixture(scope="module")
def served(predictor, pictures):
    from tests.test_page import Served

    served = Served(predictor, pictures[:4])
    yield served
    served.close()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *CAMERA])
        yield browser
        browser.close()


@pytest.fixture()
def open_page(browser, served):
    """Opens the page; at the end no script failed and no other server was asked."""
    contexts, failures, asked = [], [], []

    def opened(width=1280, height=900, **settings):
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True, **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("console", lambda said: failures.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(served.url)
        page.wait_for_selector(DROP, state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert failures == []
    assert [url for url in asked if not url.startswith((served.url, "data:", "blob:"))] == []


@pytest.fixture(scope="session")
def shots(tmp_path_factory):
    folder = Path(os.environ.get("LOBBYCARD_SHOTS") or tmp_path_factory.mktemp("shots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def drop(page, path):
    page.set_input_files(DROP, str(path))
    page.wait_for_selector(f'#picture img[alt$="{Path(path).name}"]')


def given(page) -> list[str]:
    page.wait_for_selector("#answer .bars.given")
    return page.locator("#answer .bars.given .name").all_inner_texts()


def expected(served, path, **choice) -> list[str]:
    return served.predictor.predict(path, **choice).labels


def eventually(check, seconds=10):
    until = time.monotonic() + seconds
    while not check() and time.monotonic() < until:
        time.sleep(0.05)
    return check()


def test_one_gesture_gives_genres_bars_time_and_then_where_it_looked(served, open_page, pictures):
    page = open_page()
    drop(page, pictures[0])
    assert given(page) == expected(served, pictures[0])
    note = page.inner_text("#answer .note")
    assert " ms, ONNX Runtime, fp32" in note
    page.wait_for_selector("#maps fieldset")
    says_something = page.locator("#maps .caption.n1").count()  # "No place in particular": then the poster stays bare
    assert page.locator("#maps .layer:visible").count() == (0 if says_something else 1)
    assert page.locator("#maps .caption:visible").count() == says_something
    page.locator("#maps .choices label").nth(1).click()
    layer, base = page.locator("#maps .layer.n1"), page.locator("#picture .card img")
    page.wait_for_function("document.querySelector('#maps .layer.n1').naturalWidth > 0")
    over, under = layer.bounding_box(), base.bounding_box()
    assert all(abs(over[key] - under[key]) < 1.5 for key in over), "the map lies where the picture is"
    assert page.locator("#maps .layer:visible").count() == 1
    page.locator("#maps .choices label").first.click()
    assert page.locator("#maps .layer:visible").count() == 0
    assert eventually(lambda: not served.files()), "nothing of the upload is left"
    assert page.locator("#picture .card img").evaluate("i => i.complete && i.naturalWidth > 0")


def test_pasting_works_anywhere_on_the_page(served, open_page, pictures):
    page = open_page()
    page.evaluate(
        """async bytes => {
          const carried = new DataTransfer()
          carried.items.add(new File([new Uint8Array(bytes)], 'pasted.jpg', {type: 'image/jpeg'}))
          document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: carried, bubbles: true, cancelable: true}))
        }""",
        list(pictures[1].read_bytes()),
    )
    page.wait_for_selector('#picture img[alt$="pasted.jpg"]')
    assert given(page) == expected(served, pictures[1])


def test_pasting_from_the_real_clipboard(served, open_page):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async () => {
          const canvas = new OffscreenCanvas(40, 60)
          canvas.getContext('2d').fillRect(5, 5, 20, 30)
          await navigator.clipboard.write([new ClipboardItem({'image/png': await canvas.convertToBlob()})])
        }"""
    )
    page.locator("h1").click()
    page.keyboard.press("Control+V")
    assert len(given(page)) >= 1


def test_dropping_works_anywhere_on_the_page(served, open_page, pictures):
    page = open_page()
    page.evaluate(
        """bytes => {
          const carried = new DataTransfer()
          carried.items.add(new File([new Uint8Array(bytes)], 'dropped.jpg', {type: 'image/jpeg'}))
          document.querySelector('h1').dispatchEvent(
            new DragEvent('drop', {dataTransfer: carried, bubbles: true, cancelable: true}))
        }""",
        list(pictures[2].read_bytes()),
    )
    page.wait_for_selector('#picture img[alt$="dropped.jpg"]')
    assert given(page) == expected(served, pictures[2])


def test_an_example_is_one_click(served, open_page, pictures):
    page = open_page()
    for n in (2, 0):
        page.locator("#examples button").nth(n).click()
        page.wait_for_selector(f'#picture img[alt$="{pictures[n].name}"]')
        assert given(page) == expected(served, pictures[n])


def test_controls_wait_until_wanted_and_change_the_answer_without_another_look(
    served, open_page, pictures, monkeypatch
):
    page = open_page()
    drop(page, pictures[3])
    page.wait_for_selector("#maps fieldset")
    assert not page.get_by_label("Bolder or stricter").first.is_visible()
    page.get_by_role("button", name="Adjust the answer").click()
    bold, ran = expected_at(served, pictures[3], Choice(shift=-3.0)), []
    forward = served.predictor._batcher._forward
    monkeypatch.setattr(served.predictor._batcher, "_forward", lambda *a: ran.append(a) or forward(*a))
    number = page.locator("#controls input[type=number]")
    number.nth(0).wait_for(state="visible")
    page.wait_for_timeout(500)  # Gradio puts its own values into the boxes as the fold opens
    number.nth(0).fill("-3")
    number.nth(0).press("Enter")
    assert eventually(lambda: given(page) == bold)
    number.nth(1).fill("1")
    number.nth(1).press("Enter")
    assert eventually(lambda: given(page) == bold[:1])
    number.nth(1).fill(str(len(served.predictor.labels)))
    number.nth(1).press("Enter")
    number.nth(0).fill("0")
    number.nth(0).press("Enter")
    page.get_by_label("One threshold for all genres").check()
    alone = page.get_by_label("number input for That threshold")
    alone.fill("0")
    alone.press("Enter")
    assert eventually(lambda: len(given(page)) == len(served.predictor.labels))
    assert ran == []
    page.get_by_label("Look three times").check()
    assert eventually(lambda: "three views" in page.inner_text("#answer .note"))
    assert len(ran) == 1


def expected_at(served, path, choice):
    [reading] = served.predictor.read([path])
    return served.predictor.answer(reading, choice).labels


def test_a_bad_file_is_told_in_words_and_the_next_one_works(served, open_page, pictures, tmp_path):
    page = open_page()
    bad = tmp_path / "<b>page.jpg"
    bad.write_text("<html>404</html>")
    page.set_input_files(DROP, str(bad))
    page.wait_for_selector("#answer [role=alert]")
    said = page.inner_text("#answer [role=alert]")
    assert "not a picture but a web page; expected one of JPEG" in said
    assert page.locator("#answer [role=alert] b").count() == 0
    drop(page, pictures[0])
    assert given(page) == expected(served, pictures[0])
    assert eventually(lambda: not served.files())


def test_on_a_phone_a_bad_file_is_told_where_one_looks(open_page, pictures, tmp_path):
    page = open_page(390, 844)
    bad = tmp_path / "nc_bad.jpg"
    bad.write_text("<html>404</html>")
    for first in (None, pictures[0]):
        if first:
            drop(page, first)
            page.locator("#drop").scroll_into_view_if_needed()
        page.set_input_files(DROP, str(bad))
        alert = page.locator("#answer [role=alert]")
        alert.wait_for()
        assert "nc_bad.jpg: not a picture" in alert.inner_text()
        within = lambda: (box := alert.bounding_box()) and box["y"] >= 0 and box["y"] + box["height"] <= 844  # noqa: E731,B023
        assert eventually(within)


def test_many_posters_give_a_gallery_a_table_and_the_csv_of_the_command_line(served, open_page, pictures, tmp_path):
    page = open_page()
    bad = tmp_path / "=bad.jpg"
    bad.write_bytes(pictures[0].read_bytes()[:700])
    page.get_by_role("tab", name="Many posters").click()
    page.set_input_files(DROPS, [str(p) for p in [*pictures[:12], bad]])
    page.wait_for_selector("#gallery .cards")
    assert page.locator("#gallery .cards li").count() == 13
    assert page.locator("#gallery .cards .bad").count() == 1
    assert "12 of 13 posters read" in page.inner_text("#gallery .bar")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download CSV").click()
    assert download.value.suggested_filename == "genres.csv"
    download.value.save_as(tmp_path / "genres.csv")
    with (tmp_path / "genres.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["image", "genres", "error", *served.predictor.labels]
    for path, row in zip(pictures[:12], rows[1:13], strict=True):
        assert row[0] == path.name and set(row[1].split("|")) == set(expected(served, path))
    assert rows[13][0].startswith("'=bad") and "damaged" in rows[13][2]
    page.get_by_text("As a table").click()
    assert page.locator("#gallery table tbody tr").count() == 13
    assert eventually(lambda: not served.files())
    page.set_input_files(DROPS, [str(pictures[20])])
    page.wait_for_function("document.querySelectorAll('#gallery .cards li').length === 1")


def test_two_visitors_at_once_see_their_own_posters(served, open_page, pictures):
    one, two = open_page(), open_page()
    for first, second in zip(pictures[30:34], pictures[40:44], strict=True):
        one.set_input_files(DROP, str(first))
        two.set_input_files(DROP, str(second))
        for page, path in ((one, first), (two, second)):
            page.wait_for_selector(f'#picture img[alt$="{path.name}"]')
            assert eventually(lambda page=page, path=path: given(page) == expected(served, path))


def test_a_second_poster_while_the_first_s_map_is_made_is_not_overwritten(served, open_page, pictures, monkeypatch):
    import threading

    page = open_page()
    held, inside, forward = threading.Event(), threading.Event(), served.predictor._batcher._forward

    def slow(pixels, views):
        if threading.current_thread().name == "network" and len(pixels) > 1:
            inside.set()
            held.wait(10)
        return forward(pixels, views)

    monkeypatch.setattr(served.predictor._batcher, "_forward", slow)
    drop(page, pictures[5])
    assert inside.wait(10)
    page.set_input_files(DROP, str(pictures[6]))
    time.sleep(0.5)  # the second upload waits in the network's queue behind the first one's map
    held.set()
    page.wait_for_selector(f'#picture img[alt$="{pictures[6].name}"]')
    page.wait_for_selector("#maps fieldset")
    assert given(page) == expected(served, pictures[6])
    assert page.locator("#maps .choices span").all_inner_texts()[1] == given(page)[0]


def test_the_whole_way_by_keyboard(served, open_page, pictures):
    page = open_page()
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#examples button')"):
            break
    else:
        pytest.fail("no example reached within twelve tabs")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    assert given(page) == expected(served, pictures[0])
    page.wait_for_selector("#maps fieldset")
    page.locator("#maps input").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#maps .layer.n1").is_visible()
    page.locator("#answer details summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#answer .rest").is_visible()
    assert given(page)[0] in page.inner_text("[role=status].lc-hidden")
    page.get_by_role("tab", name="One poster").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector(DROPS, state="attached")


def test_the_camera_takes_a_poster(served, browser):
    page = browser.new_context(permissions=["camera"]).new_page()
    page.set_default_timeout(20_000)
    page.goto(served.url)
    page.get_by_label("Capture from camera").click()
    page.locator("#drop").get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#drop video')?.videoWidth > 0")
    page.get_by_label("capture photo").click()
    assert len(given(page)) >= 1
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_it_fits_its_window_and_has_no_serious_accessibility_violation(
    served, open_page, pictures, shots, width, scheme
):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(width, 900, color_scheme=scheme)
    found = {}

    def look(name):
        assert page.evaluate("document.documentElement.scrollWidth") == width, name
        page.screenshot(path=shots / f"{name}-{width}-{scheme}.png", full_page=True)
        for violation in axe.run(page).response["violations"]:
            if violation["impact"] in SERIOUS:
                found[f"{name}: {violation['id']}"] = [node["html"][:160] for node in violation["nodes"][:3]]

    look("empty")
    drop(page, pictures[7])
    page.wait_for_selector("#maps fieldset")
    page.locator("#maps .choices label").nth(1).click()
    look("answer")
    page.get_by_role("button", name="Adjust the answer").click()
    page.locator("#answer details summary").click()
    page.wait_for_timeout(300)  # the fold's own animation
    look("controls")
    page.get_by_role("tab", name="Many posters").click()
    page.set_input_files(DROPS, [str(p) for p in pictures[:9]])
    page.wait_for_selector("#gallery .cards")
    look("many")
    page.get_by_role("tab", name="About this model").click()
    page.wait_for_selector("#about .gauges")
    look("about")
    assert found == {}
