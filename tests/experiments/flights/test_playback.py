from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coterie.experiments.flights.recording import Recording
from coterie.experiments.report.playback import render_playback
from coterie.text import clean

HOSTILE = "</script><script>alert(1)</script> \x1b[31m {{ 7 * 7 }}"


@pytest.fixture(scope="module")
def page(crowded: Recording, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "swarm.html"
    path.write_text(render_playback(crowded, title=HOSTILE, facts=[("policy", "<i>attention</i>")]), "utf-8")
    return path


class Parts(HTMLParser):
    """Attributes of a page's elements, and what stands in its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.attributes += attributes
        self._inside = tag == "script"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts.append(data)
            self._inside = False


def pixels(picture: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), np.int32)


def test_it_loads_nothing_and_runs_only_its_own_script(page: Path) -> None:
    text = page.read_text("utf-8")
    parts = Parts(text)
    assert len(parts.scripts) == 2
    digest = base64.b64encode(hashlib.sha256(parts.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text and "default-src 'none'" in text
    assert not [name for name, _ in parts.attributes if name.startswith("on")]
    assert not [v for name, v in parts.attributes if name in ("src", "href") and v != "data:,"]


def test_all_text_is_escaped(page: Path) -> None:
    text = page.read_text("utf-8")
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in text and "&lt;i&gt;attention" in text
    assert "{{ 7 * 7 }}" in text and clean(text) == text


def test_the_flight_is_on_it_at_fifty_moments_a_second(page: Path, crowded: Recording) -> None:
    flight = json.loads(Parts(page.read_text("utf-8")).scripts[0])
    header, position = flight["header"], flight["arrays"]["position"]
    numbers = np.frombuffer(base64.b64decode(position["data"]), position["dtype"]).reshape(position["shape"])
    places = np.asarray(header["origin"]) + np.asarray(header["step"]) * numbers
    assert header["hz"] == 50
    assert np.abs(places - crowded.position[::2]).max() < 1e-4


def test_eight_drones_for_fifteen_seconds_stay_small(flown: Callable[..., Recording]) -> None:
    found = flown(num_drones=8, num_neighbours=6, scenario="ep_rand_bezier")
    assert found.seconds == 15.0
    assert len(render_playback(found, title="a")) < 600_000


def test_the_same_flight_is_the_same_page(crowded: Recording) -> None:
    assert render_playback(crowded, title="a") == render_playback(crowded, title="a")


def test_it_opens_still_at_the_moment_that_its_address_names(tab: Any, page: Path) -> None:
    tab.open(page, "#t=2.5&drone=3&view=top")
    assert tab.run("document.getElementById('clock').textContent") == "2.50 s"
    assert tab.run("document.querySelector('tr[aria-current=true]').dataset.drone") == "3"
    assert tab.run("document.getElementById('play').getAttribute('aria-pressed')") == "false"


def test_it_plays_and_is_moved_without_a_word_on_the_console(tab: Any, page: Path) -> None:
    tab.said.clear()
    tab.open(page)
    tab.run("new Promise(done => setTimeout(done, 300))")
    assert tab.run("document.getElementById('play').getAttribute('aria-pressed')") == "true"
    assert float(tab.run("document.getElementById('clock').textContent").split()[0]) > 0
    for key in (" ", ".", ",", "n", "p", "d", "f", "t", "a", "[", "]", "1", "2", "3", "+", "-", "Home", "Escape"):
        tab.press(key)
    tab.drag((400, 300), (520, 360))
    tab.run("document.getElementById('true-size').click()")
    tab.run("location.hash = 't=1'")
    tab.draw()
    assert tab.run("document.getElementById('clock').textContent") == "1.00 s"
    assert tab.said == []


def test_keys_go_from_contact_to_contact(tab: Any, page: Path, crowded: Recording) -> None:
    tab.open(page, "#t=0")
    tab.press("n")
    moments = np.flatnonzero((crowded.events & 3).any(1))
    shown = float(tab.run("document.getElementById('clock').textContent").split()[0])
    assert shown == pytest.approx(np.ceil(moments[0] / 2) / 50, abs=0.011)
    assert int(tab.run("document.getElementById('contacts').textContent")) > 0


def test_pictures_show_the_flight_as_it_goes_on(tab: Any, page: Path) -> None:
    shots = []
    for at in ("#t=0", "#t=1.5", "#t=4"):
        tab.open(page, at)
        shots.append(pixels(tab.picture())[60:640, 30:920])
    for shot in shots:
        assert np.count_nonzero(np.bincount((shot // 16 @ np.asarray([256, 16, 1])).ravel())) > 60
    assert all((a != b).any(-1).mean() > 0.01 for a, b in zip(shots, shots[1:], strict=False))


def test_it_is_dark_where_the_person_wants_it_so(tab: Any, page: Path) -> None:
    brightness = []
    for dark in (False, True):
        tab.open(page, "#t=2", dark=dark)
        brightness.append(float(pixels(tab.picture()).mean()))
    assert brightness[0] > 200 and brightness[1] < 64


def test_it_fits_a_telephone(tab: Any, page: Path) -> None:
    tab.open(page, "#t=2", size=(390, 800))
    assert tab.run("document.documentElement.scrollWidth") <= 390
    assert tab.run("document.getElementById('scene').clientHeight") > 300


def test_weights_of_the_chosen_drone_are_told(tab: Any, page: Path, crowded: Recording) -> None:
    tab.open(page, "#t=2&drone=4")
    told = tab.run("[...document.querySelectorAll('#heeded li')].map(item => item.textContent)")
    assert crowded.attention is not None
    expected = [f"drone {j}" for j in crowded.neighbours[200, 4]] + ["obstacles"]
    assert [re.sub(r" \d+ %$", "", line) for line in told] == expected
    assert told[-1].endswith(f" {round(100 * round(255 * float(crowded.attention[200, 4, 2])) / 255)} %")


def test_drones_are_chosen_in_the_list_by_keys_and_in_the_picture_by_a_click(tab: Any, page: Path) -> None:
    chosen = "document.querySelector('tr[aria-current=true]')?.dataset.drone ?? null"
    tab.open(page, "#t=2")
    tab.run("document.querySelector('#drones tr').focus()")
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        tab.press(key)
    assert tab.run(chosen) == "2"
    tab.press("Escape")
    assert tab.run(chosen) is None
    # Who is followed comes to the middle of the picture, and stays there when it is let go.
    tab.open(page, "#t=2&drone=5&view=top")
    tab.press("f")
    tab.run("new Promise(done => setTimeout(done, 1500))")
    tab.press("Escape")
    box = "document.getElementById('scene').getBoundingClientRect()"
    middle = tab.run(f"(box => [box.x + box.width / 2, box.y + box.height / 2])({box})")
    tab.drag(tuple(middle), tuple(middle))
    assert tab.run(chosen) == "5"


def test_obstacles_that_are_kept_look_as_if_drawn_anew(tab: Any, page: Path) -> None:
    tab.open(page, "#t=1")
    # Another size and back: the first picture of a view is drawn, the second one kept, the third made of it.
    for press in ("+", "-"):
        tab.press(press)
    drawn = pixels(tab.picture())
    for key in (",", ".", ",", "."):
        tab.press(key)
    kept = pixels(tab.picture())
    assert np.abs(kept - drawn).mean() < 0.5


def test_the_map_shows_whom_each_drone_attends_to(tab: Any, page: Path, crowded: Recording) -> None:
    tab.open(page, "#t=2")
    cell = "Math.min(21, (map.clientWidth - 18) / 9)"
    corner = "map.getContext('2d').getImageData((18 + cell * j + 3) * s, (18 + cell * i + 3) * s, 1, 1).data"
    script = f"(map => {{ const s = map.width / map.clientWidth, cell = {cell}; return [...Array(8).keys()].map(i => [...Array(9).keys()].map(j => [...{corner}])) }})"  # noqa: E501
    shown = np.asarray(tab.run(f"{script}(document.getElementById('map'))"))
    assert crowded.attention is not None
    wanted = np.zeros((8, 9))
    for i in range(8):
        wanted[i, crowded.neighbours[200, i]] = crowded.attention[200, i, :2]
        wanted[i, 8] = crowded.attention[200, i, 2]
    differs = (shown != shown[np.arange(8), np.arange(8)][:, None]).any(-1)
    assert (differs[wanted > 0.05]).all() and not differs[wanted == 0].any()
    tab.run("(e => { e.value = '1'; e.dispatchEvent(new Event('change')) })(document.getElementById('map-time'))")
    tab.draw()
    whole = np.asarray(tab.run(f"{script}(document.getElementById('map'))"))
    assert (whole != shown).any()
    box = tab.run("(box => [box.x, box.y])(document.getElementById('map').getBoundingClientRect())")
    tab.drag((box[0] + 60, box[1] + 18 + 3.5 * 20), (box[0] + 60, box[1] + 18 + 3.5 * 20))
    assert tab.run("document.querySelector('tr[aria-current=true]').dataset.drone") == "3"
