"""Make the pictures of the README: `make pictures`. The page's needs Chromium, and models/sample from `make train`."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).parent.parent))

from lobbycard.catalog.sample import draw_poster

POSTERS = [
    ("Western",), ("Comedy", "Romance"), ("Horror",), ("Action", "Sci-Fi"), ("Documentary",),
    ("Animation", "Comedy"), ("Drama",), ("Horror", "Thriller"), ("Drama", "Western"), ("Animation", "Sci-Fi"),
]  # fmt: skip
COLUMNS, GAP, CAPTION = 5, 14, 22


PAGE = (1180, 1060)  # pixels of the page that are shown


def main() -> None:
    """Draw docs/sample.png and photograph docs/page.png."""
    sheet()
    page()


def page() -> None:
    """The page with an answer, of the sample model to a poster that it was not trained on, as docs/page.png."""
    from playwright.sync_api import sync_playwright

    root = Path(__file__).parents[1]
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    command = [sys.executable, "-u", "app_gradio.py", "--model", "models/sample", "--port", "0"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = next(line.split()[1] for line in server.stdout if line.startswith("page: "))
            poster = Path(__file__).with_name("poster.png")
            draw_poster(("Action", "Sci-Fi"), seed=900_000_021).save(poster)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                tab = browser.new_page(viewport={"width": PAGE[0], "height": PAGE[1]})
                tab.goto(address)
                tab.set_input_files("#drop input[type=file]", poster)
                tab.wait_for_selector("#maps fieldset", timeout=60_000)
                tab.wait_for_timeout(1000)  # for what still moves
                shot = Image.open(io.BytesIO(tab.screenshot()))
                browser.close()
        finally:
            server.terminate()
            Path(__file__).with_name("poster.png").unlink(missing_ok=True)
    shot.convert("RGB").quantize(192).save(Path(__file__).with_name("page.png"), optimize=True)


def sheet() -> None:
    """A sheet of drawn posters with their genres below, as docs/sample.png."""
    drawn = [draw_poster(labels, seed=7 + i) for i, labels in enumerate(POSTERS)]
    width, height = drawn[0].size
    rows = -(-len(drawn) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (width + GAP) + GAP, rows * (height + GAP + CAPTION) + GAP), (247, 245, 240))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for i, (poster, labels) in enumerate(zip(drawn, POSTERS, strict=True)):
        x, y = GAP + i % COLUMNS * (width + GAP), GAP + i // COLUMNS * (height + GAP + CAPTION)
        sheet.paste(poster, (x, y))
        pen.text((x + width / 2, y + height + 4), " | ".join(labels), fill=(60, 50, 50), font=font, anchor="ma")
    sheet.quantize(128).save(Path(__file__).with_name("sample.png"), optimize=True)


if __name__ == "__main__":
    main()
