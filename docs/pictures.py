"""Make the pictures of the README: `make pictures`."""

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


def main() -> None:
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
