"""The little pictures on drawn posters: three or four for each label, none of them in one colour.

Every shape is a function `shape(draw, rng, ink, x, y, r)`: it draws itself around the point (x, y),
about 2 r wide and high, in pixels, with the colours of `ink` (a `Palette`).
"""

from __future__ import annotations

import math

from lobbycard.catalog.drawing.sheet import disc, polar, shift

# Action


def burst(draw, rng, ink, x, y, r):
    count, turn = rng.randint(10, 16), rng.uniform(0, 40)
    for scale, colour in ((1.0, ink.hot), (0.68, ink.cool), (0.36, ink.sky)):
        points = []
        for i in range(2 * count):
            reach = rng.uniform(0.82, 1.12) if i % 2 else rng.uniform(0.45, 0.6)
            points.append(polar(x, y, r * scale * reach, turn + 180 * i / count))
        draw.polygon(points, fill=colour)


def missiles(draw, rng, ink, x, y, r):
    lean, count = rng.choice((-1, 1)), rng.randint(3, 4)
    for i in range(count):
        tail_x, tail_y = x - lean * r * rng.uniform(0.7, 1.1), y + r * (1.7 * i / count - 0.5)

        def along(far, off, tail_x=tail_x, tail_y=tail_y):
            return tail_x + lean * (far * 0.94 + off * 0.34) * r, tail_y - (far * 0.34 - off * 0.94) * r

        draw.polygon([along(0, 0), along(1.3, -0.13), along(1.3, 0.13)], fill=ink.cool)
        draw.polygon([along(1.3, -0.13), along(1.3, 0.13), along(1.12, 0.26), along(1.12, -0.26)], fill=ink.hot)
        draw.polygon([along(1.25, -0.13), along(1.25, 0.13), along(1.75, 0.12), along(1.75, -0.12)], fill=ink.dark)
        draw.polygon(
            [along(1.7, -0.12), along(1.7, 0.12), along(1.85, 0.08), along(2.02, 0), along(1.85, -0.08)], fill=ink.hot
        )


def bolt(draw, rng, ink, x, y, r):
    side = rng.choice((-1, 1))
    points = ((0.25, -1.1), (-0.55, 0.1), (-0.08, 0.1), (-0.35, 1.1), (0.6, -0.25), (0.1, -0.25), (0.6, -1.1))
    draw.polygon(shift([(side * a + 0.1, b + 0.1) for a, b in points], x, y, r), fill=ink.dark)
    draw.polygon(shift([(side * a, b) for a, b in points], x, y, r), fill=ink.hot)


# Animation


def creature(draw, rng, ink, x, y, r):
    colour = rng.choice((ink.hot, ink.cool))
    for side in (-1, 1):
        ear = polar(x, y, r * 1.05, -90 + side * rng.uniform(24, 42))
        draw.line([(x, y), ear], fill=ink.dark, width=max(2, int(r * 0.07)))
        disc(draw, *ear, r * 0.15, colour)
        disc(draw, x + side * r * 0.4, y + r * 0.83, r * 0.26, ink.dark, squash=0.6)
    disc(draw, x, y, r * 0.85, colour, squash=rng.uniform(0.85, 1.1))
    gaze = rng.uniform(-0.08, 0.08)
    for side in (-1, 1):
        disc(draw, x + side * r * 0.3, y - r * 0.2, r * 0.28, (255, 255, 255))
        disc(draw, x + side * r * 0.3 + gaze * r, y - r * 0.16, r * 0.13, (20, 20, 30))
    box = (x - r * 0.42, y - r * 0.05, x + r * 0.42, y + r * 0.55)
    draw.chord(box, 10, 170, fill=(120, 20, 40))


def balloons(draw, rng, ink, x, y, r):
    for i in range(rng.randint(3, 5)):
        bx, by = x + rng.uniform(-0.7, 0.7) * r, y - rng.uniform(0, 0.7) * r
        draw.line([(bx, by), (x, y + r)], fill=ink.dark, width=2)
        disc(draw, bx, by, r * 0.36, (ink.hot, ink.cool, (250, 210, 60))[i % 3], squash=1.2)
        disc(draw, bx - r * 0.1, by - r * 0.18, r * 0.08, (255, 255, 255))


def rainbow(draw, rng, ink, x, y, r):
    width = max(2, int(r * 0.15))
    for i, colour in enumerate((ink.hot, (250, 200, 60), (110, 200, 110), ink.cool)):
        reach = r * 1.15 - i * width
        draw.arc((x - reach, y - reach * 0.8, x + reach, y + reach * 1.2), 180, 360, fill=colour, width=width)
    for side in (-1, 1):
        for k in range(3):
            disc(draw, x + side * r * (0.85 + 0.17 * (k - 1)), y + r * 0.2, r * (0.24, 0.3, 0.2)[k], (255, 255, 255))


# Comedy


def disguise(draw, rng, ink, x, y, r):
    width = max(3, int(r * 0.12))
    for side in (-1, 1):
        disc(draw, x + side * r * 0.5, y - r * 0.3, r * 0.4, (255, 255, 255), ink.dark, width)
        brow = (x + side * r * 0.5 - r * 0.4, y - r * 1.0, x + side * r * 0.5 + r * 0.4, y - r * 0.5)
        draw.arc(brow, 190, 350, fill=ink.dark, width=width)
        tip = [(x, y + r * 0.38), (x + side * r * 0.45, y + r * 0.3), (x + side * r * 0.95, y + r * 0.5)]
        draw.polygon([*tip, (x + side * r * 0.5, y + r * 0.75), (x, y + r * 0.62)], fill=ink.dark)
    disc(draw, x, y + r * 0.12, r * 0.24, ink.hot, squash=1.3)


def bubble(draw, rng, ink, x, y, r):
    tail = rng.choice((-1, 1))
    colour = rng.choice(((255, 255, 255), ink.cool))
    draw.polygon(shift([(tail * 0.1, 0.4), (tail * 0.6, 0.3), (tail * 0.75, 1.05)], x, y, r), fill=ink.dark)
    disc(draw, x, y, r * 1.0, colour, ink.dark, max(2, r * 0.07), squash=0.7)
    for k in (-1, 0, 1):
        mark = [(x + k * r * 0.45, y - r * 0.38), (x + k * r * 0.45, y + r * 0.1)]
        draw.line(mark, fill=ink.hot, width=max(3, int(r * 0.17)))
        disc(draw, x + k * r * 0.45, y + r * 0.34, r * 0.11, ink.hot)


def party_hat(draw, rng, ink, x, y, r):
    lean = rng.uniform(-0.35, 0.35)
    draw.polygon(shift([(lean, -1), (-0.72, 0.85), (0.72, 0.85)], x, y, r), fill=ink.hot)
    for low in (0.05, 0.5):
        a, b = (low + 1) / 1.85, (low + 1.22) / 1.85
        stripe = [(lean - a * (0.72 + lean), low), (lean + a * (0.72 - lean), low)]
        stripe += [(lean + b * (0.72 - lean), low + 0.22), (lean - b * (0.72 + lean), low + 0.22)]
        draw.polygon(shift(stripe, x, y, r), fill=ink.cool)
    disc(draw, x + lean * r, y - r, r * 0.2, (255, 255, 255))
    for _ in range(9):
        cx, cy = polar(x, y, r * rng.uniform(0.8, 1.25), rng.uniform(180, 360))
        disc(draw, cx, cy, r * 0.07, rng.choice((ink.hot, ink.cool, ink.dark)))


def grin(draw, rng, ink, x, y, r):
    box = (x - r, y - r * 0.95, x + r, y + r * 0.8)
    draw.chord(box, 0, 180, fill=ink.dark)
    draw.rectangle((x - r * 0.85, y - r * 0.07, x + r * 0.85, y + r * 0.17), fill=(255, 255, 255))
    draw.chord((x - r * 0.5, y + r * 0.3, x + r * 0.5, y + r * 0.95), 180, 360, fill=ink.hot)


# Documentary


def globe(draw, rng, ink, x, y, r):
    width = max(2, int(r * 0.05))
    disc(draw, x, y, r, ink.cool, ink.dark, width)
    for scale in (0.35, 0.72):
        draw.ellipse((x - r * scale, y - r, x + r * scale, y + r), outline=ink.dark, width=width)
    for k in (-0.5, 0, 0.5):
        half = r * math.sqrt(1 - k * k)
        draw.line([(x - half, y + k * r), (x + half, y + k * r)], fill=ink.dark, width=width)
    draw.line([(x, y - r), (x, y + r)], fill=ink.dark, width=width)


def camera(draw, rng, ink, x, y, r):
    draw.rounded_rectangle((x - r, y - r * 0.55, x + r, y + r * 0.7), r * 0.12, fill=ink.dark)
    draw.rectangle((x - r * 0.4, y - r * 0.78, x + r * 0.2, y - r * 0.5), fill=ink.dark)
    for scale, colour in ((0.52, ink.sky), (0.42, ink.cool), (0.26, ink.dark)):
        disc(draw, x, y + r * 0.08, r * scale, colour)
    disc(draw, x - r * 0.08, y - r * 0.02, r * 0.09, (255, 255, 255))
    disc(draw, x + r * 0.76, y - r * 0.32, r * 0.1, ink.hot)


def prints(draw, rng, ink, x, y, r):
    for i in range(rng.randint(2, 4)):
        px, py, turn = x + rng.uniform(-0.5, 0.5) * r, y + rng.uniform(-0.5, 0.5) * r, rng.uniform(-20, 20)
        corners = [polar(px, py, r * 0.7, turn + a) for a in (40, 140, 220, 320)]
        draw.polygon(corners, fill=(246, 244, 238), outline=ink.dark)
        inner = [polar(px, py - r * 0.04, r * 0.56, turn + a) for a in (36, 144, 220, 320)]
        draw.polygon(inner, fill=(ink.dark, ink.cool, ink.hot)[i % 3])


# Drama


def walker(draw, rng, ink, x, y, r):
    lean = rng.uniform(-1.1, 1.1)
    draw.polygon(shift([(-0.16, 0.9), (0.16, 0.9), (lean + 0.2, 1.5), (lean - 0.2, 1.5)], x, y, r), fill=ink.cool)
    disc(draw, x, y - r * 0.45, r * 0.15, ink.dark)
    draw.polygon(shift([(-0.1, -0.3), (0.1, -0.3), (0.26, 0.42), (-0.26, 0.42)], x, y, r), fill=ink.dark)
    for side in (-1, 1):
        leg = [(side * 0.02, 0.3), (side * 0.2, 0.3), (side * 0.2, 0.92), (side * 0.08, 0.92)]
        draw.polygon(shift(leg, x, y, r), fill=ink.dark)
    if rng.random() < 0.6:
        draw.line(shift([(0.22, 0.1), (0.22, -0.7)], x, y, r), fill=ink.dark, width=max(2, int(r * 0.05)))
        draw.chord((x - r * 0.5, y - r * 1.1, x + r * 0.94, y - r * 0.15), 180, 360, fill=ink.hot)


def window(draw, rng, ink, x, y, r):
    slant = rng.uniform(-0.5, 0.5)
    beam = [(-0.5, 0.5), (0.5, 0.5), (0.8 + slant, 1.3), (-0.8 + slant, 1.3)]
    draw.polygon(shift(beam, x, y, r), fill=ink.cool)
    draw.rectangle((x - r * 0.62, y - r * 1.02, x + r * 0.62, y + r * 0.56), fill=ink.dark)
    for column in (-1, 1):
        for row in (-0.9, -0.4, 0.1):
            left = x + (column - 1) * r * 0.26 + column * r * 0.03
            draw.rectangle((left, y + row * r, left + r * 0.5, y + (row + 0.4) * r), fill=ink.hot)


def tree(draw, rng, ink, x, y, r):
    def grow(x0, y0, length, angle, depth):
        x1, y1 = polar(x0, y0, length, angle)
        draw.line([(x0, y0), (x1, y1)], fill=ink.dark, width=max(1, int(length * 0.16)))
        if depth:
            for side in (-1, 1):
                grow(x1, y1, length * rng.uniform(0.62, 0.8), angle + side * rng.uniform(14, 38), depth - 1)
        else:
            disc(draw, x1, y1, r * 0.075, rng.choice((ink.hot, ink.hot, ink.cool)))

    grow(x, y + r, r * 0.68, -90 + rng.uniform(-8, 8), 4)


# Horror


def house(draw, rng, ink, x, y, r):
    lean = rng.uniform(-0.2, 0.2)
    draw.polygon(shift([(-0.7, 1), (-0.6 + lean, -0.1), (0.6 + lean, -0.1), (0.7, 1)], x, y, r), fill=ink.dark)
    draw.polygon(shift([(-0.85 + lean, -0.05), (lean, -0.7), (0.85 + lean, -0.05)], x, y, r), fill=ink.dark)
    tower = [(0.2 + lean, 0), (0.22 + lean, -0.75), (0.42 + lean, -1.25), (0.62 + lean, -0.75), (0.6 + lean, 0)]
    draw.polygon(shift(tower, x, y, r), fill=ink.dark)
    for wx, wy in ((-0.38, 0.15), (0.3, 0.15), (-0.05, -0.35), (0.42, -0.62)):
        if rng.random() < 0.8:
            draw.rectangle(
                (
                    x + (wx + lean * 0.8) * r - r * 0.09,
                    y + wy * r,
                    x + (wx + lean * 0.8) * r + r * 0.09,
                    y + (wy + 0.24) * r,
                ),
                fill=ink.hot,
            )
    draw.rectangle((x - r * 0.12, y + r * 0.6, x + r * 0.14, y + r), fill=ink.cool)


def claws(draw, rng, ink, x, y, r):
    side = rng.choice((-1, 1))
    for k in (-0.66, -0.22, 0.22, 0.66):
        a, b = rng.uniform(-1.15, -0.8), rng.uniform(0.8, 1.2)
        middle = k + rng.uniform(-0.05, 0.05)
        slash = [
            (side * (k + 0.3), a),
            (side * (middle + 0.12), 0),
            (side * (k - 0.3), b),
            (side * (middle - 0.1), -0.1),
        ]
        draw.polygon(shift(slash, x, y, r), fill=ink.hot)


def bats(draw, rng, ink, x, y, r):
    for _ in range(rng.randint(3, 5)):
        bx, by, s = x + rng.uniform(-0.9, 0.9) * r, y + rng.uniform(-0.8, 0.8) * r, r * rng.uniform(0.3, 0.55)
        half = [
            (0, -0.15),
            (0.12, -0.35),
            (0.2, -0.1),
            (0.6, -0.45),
            (1.1, -0.1),
            (0.85, 0.05),
            (0.7, 0.3),
            (0.45, 0.12),
        ]
        half += [(0.28, 0.35), (0, 0.45)]
        draw.polygon(shift(half + [(-a, b) for a, b in reversed(half)], bx, by, s), fill=ink.dark)
        for side in (-1, 1):
            disc(draw, bx + side * s * 0.08, by, s * 0.05 + 1, ink.hot)


def skull(draw, rng, ink, x, y, r):
    bone = (232, 226, 206)
    disc(draw, x, y - r * 0.2, r * 0.8, bone, squash=0.9)
    draw.rounded_rectangle((x - r * 0.45, y + r * 0.2, x + r * 0.45, y + r * 0.9), r * 0.14, fill=bone)
    for side in (-1, 1):
        disc(draw, x + side * r * 0.33, y - r * 0.15, r * 0.24, ink.dark, squash=1.15)
        disc(draw, x + side * r * 0.33, y - r * 0.1, r * 0.07, ink.hot)
    draw.polygon(shift([(0, 0.12), (-0.12, 0.36), (0.12, 0.36)], x, y, r), fill=ink.dark)
    for k in (-0.2, 0, 0.2):
        draw.line(shift([(k, 0.55), (k, 0.88)], x, y, r), fill=ink.dark, width=max(2, int(r * 0.05)))


# Romance


def heart(draw, rng, ink, x, y, r, colour=None):
    points = []
    for i in range(40):
        t = 2 * math.pi * i / 40
        a = 16 * math.sin(t) ** 3
        b = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((a / 17, -b / 17))
    draw.polygon(shift(points, x, y, r), fill=colour or ink.hot)


def hearts(draw, rng, ink, x, y, r):
    heart(draw, rng, ink, x, y, r * rng.uniform(0.65, 0.8))
    for _ in range(rng.randint(2, 5)):
        hx, hy = polar(x, y, r * rng.uniform(0.75, 1.1), rng.uniform(0, 360))
        heart(draw, rng, ink, hx, hy, r * rng.uniform(0.14, 0.3), rng.choice((ink.cool, ink.dark, ink.hot)))


def couple(draw, rng, ink, x, y, r):
    for side, colour in ((-1, ink.dark), (1, ink.cool)):
        shape = [(0.06, 1.1), (0.04, 0.3), (0.12, -0.1), (0.42, -0.2), (0.72, 0.0), (0.85, 1.1)]
        draw.polygon(shift([(side * a, b) for a, b in shape], x, y, r), fill=colour)
        disc(draw, x + side * r * 0.3, y - r * 0.5, r * 0.28, colour, squash=1.1)
    heart(draw, rng, ink, x, y - r * 1.0, r * 0.24)


def rose(draw, rng, ink, x, y, r):
    bend = rng.uniform(-0.4, 0.4)
    draw.line(shift([(0, -0.3), (bend * 0.4, 0.4), (bend, 1.2)], x, y, r), fill=ink.dark, width=max(2, int(r * 0.08)))
    for side in (-1, 1):
        leaf = [(bend * 0.4, 0.5), (bend * 0.4 + side * 0.35, 0.2), (bend * 0.4 + side * 0.6, 0.32)]
        draw.polygon(shift([*leaf, (bend * 0.4 + side * 0.4, 0.52)], x, y, r), fill=ink.dark)
    for k in range(5):
        px, py = polar(x, y - r * 0.4, r * 0.27, 72 * k + 18)
        disc(draw, px, py, r * 0.33, ink.hot)
    for scale in (0.34, 0.22, 0.1):
        draw.arc((x - r * scale, y - r * (0.4 + scale), x + r * scale, y - r * (0.4 - scale)), 300, 210, ink.dark, 2)


# Sci-Fi


def planet(draw, rng, ink, x, y, r):
    width, tilt = max(3, int(r * 0.1)), rng.uniform(0.2, 0.34)
    ring = (x - r * 1.15, y - r * tilt, x + r * 1.15, y + r * tilt)
    draw.arc(ring, 180, 360, fill=ink.hot, width=width)
    disc(draw, x, y, r * 0.68, ink.cool)
    for k in (-0.3, 0.05):
        half = r * 0.68 * math.sqrt(1 - (k / 0.68) ** 2)
        draw.line([(x - half, y + k * r), (x + half * 0.5, y + k * r)], fill=ink.dark, width=max(2, int(r * 0.07)))
    draw.arc(ring, 0, 180, fill=ink.hot, width=width)


def saucer(draw, rng, ink, x, y, r):
    slant = rng.uniform(-0.4, 0.4)
    beam = [(-0.3, 0), (0.3, 0), (0.75 + slant, 1.25), (-0.75 + slant, 1.25)]
    draw.polygon(shift(beam, x, y, r), fill=ink.cool)
    draw.chord((x - r * 0.5, y - r * 0.75, x + r * 0.5, y + r * 0.35), 180, 360, fill=ink.hot)
    disc(draw, x, y - r * 0.1, r, ink.dark, squash=0.27)
    for k in (-0.6, -0.2, 0.2, 0.6):
        disc(draw, x + k * r, y - r * 0.07, r * 0.09, ink.hot)


def rocket(draw, rng, ink, x, y, r):
    lean = rng.uniform(-0.25, 0.25)
    body = [(0.6, -1.1), (0.32, -0.62), (0.28, 0.5), (-0.28, 0.5), (-0.32, -0.62)]
    points = [(0 if i == 0 else a, b) for i, (a, b) in enumerate(body)]

    def place(shape):
        return shift([(a - lean * b, b) for a, b in shape], x, y, r)

    for side in (-1, 1):
        draw.polygon(place([(side * 0.25, 0.05), (side * 0.65, 0.7), (side * 0.25, 0.5)]), fill=ink.hot)
    draw.polygon(place([(-0.2, 0.5), (0.2, 0.5), (0.08, 0.85), (0, 1.2), (-0.08, 0.85)]), fill=ink.hot)
    draw.polygon(place(points), fill=ink.cool)
    disc(draw, *place([(0, -0.35)])[0], r * 0.16, ink.dark)


# Thriller


def crosshair(draw, rng, ink, x, y, r):
    width = max(3, int(r * 0.08))
    for scale in (0.9, 0.45):
        disc(draw, x, y, r * scale, None, ink.hot, width)
    for angle in (0, 90, 180, 270):
        draw.line([polar(x, y, r * 0.2, angle), polar(x, y, r * 1.15, angle)], fill=ink.hot, width=width)


def keyhole(draw, rng, ink, x, y, r):
    draw.rounded_rectangle((x - r * 0.72, y - r, x + r * 0.72, y + r), r * 0.6, fill=ink.cool)
    draw.rounded_rectangle((x - r * 0.6, y - r * 0.88, x + r * 0.6, y + r * 0.88), r * 0.5, fill=ink.dark)
    disc(draw, x, y - r * 0.25, r * 0.3, ink.hot)
    draw.polygon(shift([(-0.12, -0.1), (0.12, -0.1), (0.3, 0.6), (-0.3, 0.6)], x, y, r), fill=ink.hot)


def spiral(draw, rng, ink, x, y, r):
    turns, start, side = rng.uniform(2.6, 3.6), rng.uniform(0, 360), rng.choice((-1, 1))
    steps = 70
    points = [polar(x, y, r * 1.05 * i / steps, start + side * 360 * turns * i / steps) for i in range(steps + 1)]
    draw.line(points, fill=ink.hot, width=max(3, int(r * 0.1)), joint="curve")


def eye(draw, rng, ink, x, y, r):
    lids = [
        (math.cos(t) * 1.1, math.sin(t) * 0.55 * abs(math.sin(t)) ** 0.4) for t in (i * math.pi / 16 for i in range(32))
    ]
    draw.polygon(shift(lids, x, y, r), fill=(240, 240, 236))
    look = rng.uniform(-0.3, 0.3) * r
    for scale, colour in ((0.46, ink.hot), (0.24, (12, 12, 16))):
        disc(draw, x + look, y, r * scale, colour)
    disc(draw, x + look - r * 0.12, y - r * 0.14, r * 0.08, (255, 255, 255))


# Western


def cactus(draw, rng, ink, x, y, r):
    width = max(4, int(r * 0.3))
    for side in (-1, 1):
        level, top = rng.uniform(-0.1, 0.4), rng.uniform(-0.7, -0.3)
        arm = shift([(0, level), (side * 0.6, level), (side * 0.6, top)], x, y, r)
        draw.line(arm, fill=ink.dark, width=int(width * 0.75), joint="curve")
        disc(draw, *arm[1], width * 0.37, ink.dark)
        disc(draw, *arm[2], width * 0.37, ink.dark)
    draw.rounded_rectangle((x - width * 0.55, y - r * 1.05, x + width * 0.55, y + r), width * 0.5, fill=ink.dark)
    disc(draw, x, y - r * 1.05, width * 0.28, ink.hot)


def badge(draw, rng, ink, x, y, r):
    points, turn = int(rng.choice((5, 6))), rng.uniform(-8, 8) - 90
    corners = [polar(x, y, r * (0.95 if i % 2 == 0 else 0.5), turn + 180 * i / points) for i in range(2 * points)]
    draw.polygon(corners, fill=ink.hot)
    for corner in corners[::2]:
        disc(draw, *corner, r * 0.13, ink.hot)
    disc(draw, x, y, r * 0.36, None, ink.dark, max(2, r * 0.06))
    disc(draw, x, y, r * 0.14, ink.dark)


def horseshoe(draw, rng, ink, x, y, r):
    width = max(4, int(r * 0.3))
    box = (x - r * 0.85, y - r, x + r * 0.85, y + r * 0.9)
    draw.arc(box, 115, 65, fill=ink.hot, width=width)
    for angle in (135, 165, 200, 235, 305, 340, 15, 45):
        px, py = x + math.cos(math.radians(angle)) * r * 0.7, y - r * 0.05 + math.sin(math.radians(angle)) * r * 0.8
        disc(draw, px, py, r * 0.06 + 1, ink.dark)


def hat(draw, rng, ink, x, y, r):
    crown = [(-0.55, 0.3), (-0.48, -0.45), (-0.3, -0.62), (0, -0.45), (0.3, -0.62), (0.48, -0.45), (0.55, 0.3)]
    draw.polygon(shift(crown, x, y, r), fill=ink.dark)
    draw.rectangle((x - r * 0.53, y + r * 0.02, x + r * 0.53, y + r * 0.2), fill=ink.hot)
    brim = [(-1.15, 0.02), (-0.7, 0.3), (0.7, 0.3), (1.15, 0.02), (0.9, 0.5), (0.4, 0.62), (-0.4, 0.62), (-0.9, 0.5)]
    draw.polygon(shift(brim, x, y, r), fill=ink.dark)


# Nobody's: what any poster may carry


def star(draw, rng, ink, x, y, r):
    turn = rng.uniform(0, 72)
    corners = [polar(x, y, r * (1 if i % 2 == 0 else 0.42), turn + 36 * i) for i in range(10)]
    draw.polygon(corners, fill=rng.choice((ink.hot, ink.cool)))


def cloud(draw, rng, ink, x, y, r):
    colour = rng.choice(((255, 255, 255), ink.cool))
    for k, size in ((-0.6, 0.4), (-0.1, 0.55), (0.5, 0.42)):
        disc(draw, x + k * r, y - size * r * 0.3, size * r, colour, squash=0.7)


def bird(draw, rng, ink, x, y, r):
    for side in (-1, 1):
        box = (min(x, x + side * r), y - r * 0.3, max(x, x + side * r), y + r * 0.5)
        draw.arc(box, 190, 350, fill=ink.dark, width=3)


def dots(draw, rng, ink, x, y, r):
    colour = rng.choice((ink.hot, ink.cool, ink.dark))
    for _ in range(rng.randint(3, 7)):
        disc(draw, x + rng.uniform(-1, 1) * r, y + rng.uniform(-1, 1) * r, r * rng.uniform(0.06, 0.16), colour)


def bar(draw, rng, ink, x, y, r):
    turn, half = rng.uniform(0, 180), r * rng.uniform(0.6, 1.3)
    ends = [polar(x, y, half, turn), polar(x, y, half, turn + 180)]
    draw.line(ends, fill=rng.choice((ink.hot, ink.cool, ink.dark)), width=rng.randint(3, 9))


MOTIFS = {
    "Action": (burst, missiles, bolt),
    "Animation": (creature, balloons, rainbow),
    "Comedy": (disguise, bubble, party_hat, grin),
    "Documentary": (globe, camera, prints),
    "Drama": (walker, window, tree),
    "Horror": (house, claws, bats, skull),
    "Romance": (hearts, couple, rose),
    "Sci-Fi": (planet, saucer, rocket),
    "Thriller": (crosshair, keyhole, spiral, eye),
    "Western": (cactus, badge, horseshoe, hat),
}
CLUTTER = (star, cloud, bird, dots, bar)
