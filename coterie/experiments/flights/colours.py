"""One colour for each drone, the same on the page and in pictures."""

from __future__ import annotations

import math

_FEW = 10
_GOLDEN = 137.508
# Lightness and chroma; of many drones neighbours in hue differ in lightness too.
_LIGHT = ((0.58, 0.17), (0.48, 0.14), (0.68, 0.14))
_DARK = ((0.78, 0.14), (0.68, 0.16), (0.86, 0.1))


def drone_colours(count: int, *, dark: bool = False) -> list[str]:
    """As `#rrggbb`, on a light or a dark ground."""
    tones = _DARK if dark else _LIGHT
    if count <= _FEW:
        hues = [25 + 360 * i / max(count, 1) for i in range(count)]
        return [_hex(*tones[i % 2 if count > 6 else 0], hue) for i, hue in enumerate(hues)]
    return [_hex(*tones[i % 3], 25 + _GOLDEN * i) for i in range(count)]


def _hex(lightness: float, chroma: float, hue: float) -> str:
    """From OKLCH, in which equal steps look equal (Ottosson, "A perceptual color space", 2020)."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    return "#" + "".join(f"{round(255 * _gamma(min(max(value, 0.0), 1.0))):02x}" for value in linear)


def _gamma(value: float) -> float:
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
