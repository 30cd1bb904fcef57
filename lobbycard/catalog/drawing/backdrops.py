"""What lies behind everything on a drawn poster: two or three kinds for each label, some of them shared.

Every backdrop is a function `backdrop(draw, rng, ink)` that fills the whole sheet.
"""

from __future__ import annotations

from lobbycard.catalog.drawing.shapes import star
from lobbycard.catalog.drawing.sheet import HEIGHT, WIDTH, blend, disc, polar


def _sun_rays(draw, rng, ink):
    x, y, count = WIDTH * rng.uniform(0.3, 0.7), HEIGHT * rng.uniform(0.35, 0.7), rng.randint(8, 14)
    colour = blend(ink.sky, ink.hot, rng.uniform(0.2, 0.4))
    for i in range(count):
        a = 360 * i / count
        draw.polygon([(x, y), polar(x, y, 700, a), polar(x, y, 700, a + 180 / count)], fill=colour)


def _slant(draw, rng, ink):
    y, fall = HEIGHT * rng.uniform(0.25, 0.6), rng.choice((-1, 1)) * HEIGHT * rng.uniform(0.15, 0.4)
    draw.polygon([(0, y), (WIDTH, y + fall), (WIDTH, HEIGHT), (0, HEIGHT)], fill=blend(ink.ground, ink.dark, 0.5))
    for i in range(rng.randint(2, 4)):
        top = y - 14 - 26 * i
        strip = [(0, top), (WIDTH, top + fall), (WIDTH, top + fall + 12 - 3 * i), (0, top + 12 - 3 * i)]
        draw.polygon(strip, fill=blend(ink.sky, ink.hot, 0.6))


def _hills(draw, rng, ink):
    for i in range(3):
        colour = blend(ink.ground, (ink.cool, ink.hot, ink.dark)[i], 0.35)
        x, reach = WIDTH * rng.uniform(-0.1, 1.1), WIDTH * rng.uniform(0.6, 0.9)
        disc(draw, x, HEIGHT * (0.72 + 0.1 * i) + reach * 0.5, reach, colour, squash=0.5)
    for _ in range(rng.randint(1, 3)):
        x, y = WIDTH * rng.random(), HEIGHT * rng.uniform(0.05, 0.45)
        for k in (-1, 0, 1):
            disc(draw, x + 24 * k, y + 6 * abs(k), 24 - 5 * abs(k), (255, 255, 255), squash=0.8)


def _polka(draw, rng, ink):
    step, colour = rng.randint(34, 56), blend(ink.sky, rng.choice((ink.hot, ink.cool)), 0.28)
    for row in range(HEIGHT // step + 2):
        for column in range(WIDTH // step + 2):
            disc(draw, (column + row % 2 / 2) * step, row * step, step * 0.2, colour)


def _panel(draw, rng, ink):
    edge, colour = rng.uniform(0.55, 0.7), rng.choice((ink.cool, ink.dark, ink.hot))
    box = rng.choice(
        ((0, HEIGHT * edge, WIDTH, HEIGHT), (0, 0, WIDTH * (1 - edge), HEIGHT), (0, 0, WIDTH, HEIGHT * (1 - edge)))
    )
    draw.rectangle(box, fill=blend(ink.ground, colour, 0.75))
    for i in range(rng.randint(4, 9)):
        y = HEIGHT * (0.06 + 0.05 * i)
        draw.line([(WIDTH * 0.06, y), (WIDTH * rng.uniform(0.12, 0.4), y)], fill=blend(ink.sky, ink.dark, 0.3), width=3)


def _horizon(draw, rng, ink):
    y = HEIGHT * rng.uniform(0.58, 0.72)
    disc(
        draw, WIDTH * rng.uniform(0.2, 0.8), y - rng.uniform(-10, 90), rng.uniform(28, 60), blend(ink.sky, ink.hot, 0.7)
    )
    draw.rectangle((0, y, WIDTH, HEIGHT), fill=blend(ink.ground, ink.dark, 0.45))
    for i in range(rng.randint(3, 6)):
        low, x = y + 12 + 18 * i, WIDTH * rng.uniform(0.1, 0.7)
        draw.line([(x, low), (x + rng.uniform(30, 110), low)], fill=blend(ink.ground, ink.hot, 0.4), width=3)


def _halo(draw, rng, ink):
    x, y = WIDTH * rng.uniform(0.4, 0.6), HEIGHT * rng.uniform(0.36, 0.52)
    for i in range(3):
        disc(draw, x, y, WIDTH * (0.5 - 0.06 * i), blend(ink.sky, ink.cool, 0.2 + 0.22 * i))


def _passe_partout(draw, rng, ink):
    edge = rng.randint(14, 24)
    draw.rectangle((0, 0, WIDTH, HEIGHT), outline=blend(ink.cool, (255, 255, 255), 0.3), width=edge)
    draw.rectangle((edge, edge, WIDTH - edge, HEIGHT - edge), outline=ink.dark, width=3)
    for x in (edge, WIDTH - edge):
        for y in (edge, HEIGHT - edge):
            disc(draw, x, y, edge * 0.9, ink.hot)


def _woods(draw, rng, ink):
    disc(
        draw,
        WIDTH * rng.uniform(0.25, 0.75),
        HEIGHT * rng.uniform(0.2, 0.4),
        rng.uniform(50, 90),
        blend(ink.sky, ink.cool, 0.65),
    )
    for _ in range(rng.randint(6, 10)):
        x, width, lean = WIDTH * rng.random(), rng.uniform(4, 13), rng.uniform(-30, 30)
        draw.polygon([(x - width, HEIGHT), (x + width, HEIGHT), (x + lean, rng.uniform(-40, 120))], fill=ink.dark)
        for _ in range(3):
            y = HEIGHT * rng.uniform(0.15, 0.6)
            tip = (x + rng.choice((-1, 1)) * rng.uniform(25, 60), y - rng.uniform(15, 50))
            draw.line([(x + lean * (1 - y / HEIGHT), y), tip], fill=ink.dark, width=4)


def _night(draw, rng, ink):
    for i in range(5):
        edge = 16 * (4 - i)
        draw.rectangle((0, 0, WIDTH, HEIGHT), outline=blend(ink.sky, ink.dark, 0.3 + 0.15 * i), width=edge + 10)


def _star_field(draw, rng, ink):
    for _ in range(rng.randint(50, 90)):
        size = rng.choice((1, 1, 2, 3))
        disc(draw, WIDTH * rng.random(), HEIGHT * rng.random(), size, blend(ink.sky, (255, 255, 255), 0.85))
    for _ in range(rng.randint(0, 3)):
        star(draw, rng, ink, WIDTH * rng.random(), HEIGHT * rng.uniform(0, 0.5), 9)


def _grid(draw, rng, ink):
    y, x, colour = HEIGHT * rng.uniform(0.58, 0.68), WIDTH * rng.uniform(0.4, 0.6), blend(ink.ground, ink.hot, 0.6)
    _star_field(draw, rng, ink)
    draw.rectangle((0, y, WIDTH, HEIGHT), fill=blend(ink.ground, ink.dark, 0.5))
    for i in range(-9, 10):
        draw.line([(x + i * 14, y), (x + i * 120, HEIGHT)], fill=colour, width=2)
    for i in range(8):
        draw.line(
            [(0, y + (HEIGHT - y) * (i / 7) ** 2), (WIDTH, y + (HEIGHT - y) * (i / 7) ** 2)], fill=colour, width=2
        )


def _blinds(draw, rng, ink):
    step, fall, colour = rng.randint(22, 36), rng.uniform(-50, 50), blend(ink.ground, ink.dark, 0.7)
    for i in range(-3, HEIGHT // step + 4):
        y = i * step
        draw.polygon([(0, y), (WIDTH, y + fall), (WIDTH, y + fall + step * 0.5), (0, y + step * 0.5)], fill=colour)


def _corridor(draw, rng, ink):
    x, y, steps = WIDTH * rng.uniform(0.35, 0.65), HEIGHT * rng.uniform(0.3, 0.55), rng.randint(6, 9)
    for i in range(steps):
        share = 1 - i / steps
        box = (x - x * share, y - y * share, x + (WIDTH - x) * share, y + (HEIGHT - y) * share)
        draw.rectangle(box, fill=blend(ink.sky, ink.dark, 0.15 + 0.5 * (i % 2)))


def _mesa(draw, rng, ink):
    y = HEIGHT * rng.uniform(0.58, 0.68)
    disc(draw, WIDTH * rng.uniform(0.3, 0.7), y - 10, rng.uniform(70, 120), blend(ink.sky, ink.hot, 0.55))
    for _ in range(rng.randint(2, 3)):
        x, wide, high = WIDTH * rng.uniform(0, 1), rng.uniform(40, 90), rng.uniform(50, 130)
        block = [(x - wide, y), (x - wide * 0.7, y - high), (x + wide * 0.6, y - high), (x + wide, y)]
        draw.polygon(block, fill=blend(ink.ground, ink.dark, rng.uniform(0.25, 0.55)))
    draw.rectangle((0, y, WIDTH, HEIGHT), fill=blend(ink.ground, ink.cool, 0.4))


BACKDROPS = {
    "Action": (_slant, _slant, _sun_rays),
    "Animation": (_hills, _hills, _polka),
    "Comedy": (_sun_rays, _polka, _polka),
    "Documentary": (_panel, _panel, _passe_partout),
    "Drama": (_horizon, _horizon, _halo),
    "Horror": (_woods, _woods, _night),
    "Romance": (_halo, _passe_partout, _passe_partout),
    "Sci-Fi": (_grid, _grid, _star_field),
    "Thriller": (_blinds, _corridor, _night),
    "Western": (_mesa, _mesa, _horizon),
}
