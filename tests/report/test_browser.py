"""The page in a real browser: nothing fails, nothing is fetched, nothing sticks out, and keys are enough."""

import fcntl
import json
import os
import select
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interpose.report import Result, html, picture

pytestmark = pytest.mark.needs("chromium")
KINDS = ["holds", "fails", "tiny", "long", "large"]
PHONE, DESK = (390, 844), (1200, 900)


class Browser:
    """Headless Chromium, spoken to through a pipe in its DevTools protocol."""

    def __init__(self, profile: Path) -> None:
        (read, self._out), (self._in, write) = os.pipe(), os.pipe()
        # Chromium listens on descriptor 3 and answers on 4, so neither end may have such a number before.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (read, write)]
        command = [shutil.which("chromium") or "chromium", "--headless", "--no-sandbox", "--disable-gpu"]
        command += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        with Path(os.devnull).open("w") as nowhere:
            actions = [(os.POSIX_SPAWN_DUP2, ends[0], 3), (os.POSIX_SPAWN_DUP2, ends[1], 4)]
            actions += [(os.POSIX_SPAWN_DUP2, nowhere.fileno(), 1), (os.POSIX_SPAWN_DUP2, nowhere.fileno(), 2)]
            self._process = os.posix_spawn(command[0], command, dict(os.environ), file_actions=actions)
        for end in (read, write, *ends):
            os.close(end)
        self._buffer, self._number, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._session = ""
        self.call("Browser.close")
        os.waitpid(self._process, 0)
        os.close(self._in)
        os.close(self._out)

    def _message(self) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self._in, 1 << 20) if ready else b""
            assert piece, "chromium said nothing for a minute, or ended"
            self._buffer += piece
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method: str, **settings: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": settings}
        os.write(
            self._out, json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0"
        )
        while (answer := self._message()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def open(self, page: Path, size: tuple[int, int], *, dark: bool = False, query: str = "") -> None:
        self.events.clear()
        mobile = size[0] < 600
        self.call(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=mobile
        )
        colours = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[colours])
        self.call("Page.navigate", url=page.as_uri() + query)
        while "Page.loadEventFired" not in [event.get("method") for event in self.events]:
            self.events.append(self._message())

    def run(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        code = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code[key])

    def complaints(self) -> list[dict[str, Any]]:
        self.run("0")
        bad = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event["params"] for event in self.events if event.get("method") in bad]

    def requests(self) -> set[str]:
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return {event["params"]["request"]["url"] for event in sent}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


SHOWN = [(kind, size) for kind in KINDS for size in (PHONE, DESK)] + [("holds", (320, 640)), ("holds", (768, 1024))]


@pytest.mark.parametrize(("kind", "size"), SHOWN, ids=str)
def test_it_opens_without_a_complaint_a_request_or_a_scroll_bar(
    browser: Browser, pages: dict[str, Path], kind: str, size: tuple[int, int]
) -> None:
    browser.open(pages[kind], size, dark=size == PHONE)
    assert browser.run("document.documentElement.scrollWidth") <= size[0]
    assert browser.run("document.title").endswith("SmolLM2-135M-Instruct")
    assert browser.complaints() == []
    assert browser.requests() == {pages[kind].as_uri()}


STICKING_OUT = """(() => {
  const out = [];
  for (const svg of document.querySelectorAll("svg.figure")) {
    if (!svg.getClientRects().length) continue;
    const paper = svg.getBoundingClientRect();
    for (const text of svg.querySelectorAll("text")) {
      const box = text.getBoundingClientRect();
      const inside = box.left >= paper.left - 1 && box.right <= paper.right + 1
        && box.top >= paper.top - 1 && box.bottom <= paper.bottom + 1;
      if (!inside) out.push(text.textContent);
    }
  }
  return out;
})()"""

COLLIDING = """(() => {
  const out = [];
  for (const svg of document.querySelectorAll("svg.figure")) {
    if (!svg.getClientRects().length) continue;
    const boxes = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
    boxes.forEach(([name, a], i) => boxes.slice(0, i).forEach(([other, b]) => {
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > 1 && down > 3) out.push(`${name} / ${other}`);
    }));
  }
  return out;
})()"""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [PHONE, DESK], ids=str)
def test_no_label_is_cut_off_or_lies_on_another(
    browser: Browser, pages: dict[str, Path], kind: str, size: tuple[int, int]
) -> None:
    browser.open(pages[kind], size)
    assert browser.run(STICKING_OUT) == []
    assert browser.run(COLLIDING) == []
    smallest = "Math.min(...[...document.querySelectorAll('svg.figure text')].filter((t) => t.getClientRects().length)"
    assert browser.run(f"{smallest}.map((t) => t.getBoundingClientRect().height))") >= 9, "letters too small to read"


# Grounds may be see-through, so all that lie under a text are painted one over the other.
CONTRAST = """(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const light = (colours) => {
    for (canvas.fillStyle of colours) canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const grounds = (element) => {
    const under = [];
    for (let at = element; at; at = at.parentElement) under.unshift(getComputedStyle(at).backgroundColor);
    return ["white", ...under];
  };
  let worst = [99, ""];
  for (const element of document.querySelectorAll("h1,h2,h3,p,b,dt,dd,th,td,figcaption,button,mark,.blank,li,span")) {
    if (!element.textContent.trim() || !element.getClientRects().length) continue;
    const below = grounds(element);
    const [a, b] = [light([...below, getComputedStyle(element).color]), light(below)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, element.textContent];
  }
  return worst;
})()"""


@pytest.mark.parametrize("kind", ["holds", "fails"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, pages: dict[str, Path], kind: str, dark: bool) -> None:
    browser.open(pages[kind], DESK, dark=dark)
    ratio, text = browser.run(CONTRAST)
    assert ratio >= 4.5, f"WCAG AA asks for 4.5, which this lacks: {text}"


GROUND = "getComputedStyle(document.body).backgroundColor"


def test_it_follows_the_system_until_the_reader_chooses(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["tiny"], DESK)
    light = browser.run(GROUND)
    browser.open(pages["tiny"], DESK, dark=True)
    dark = browser.run(GROUND)
    assert light != dark
    browser.run("document.getElementById('theme').click()")
    assert browser.run(GROUND) == light
    browser.open(pages["tiny"], DESK, dark=True)
    assert browser.run(GROUND) == light, "the choice was forgotten"
    browser.run("localStorage.clear()")
    browser.open(pages["tiny"], DESK, query="?theme=dark")
    assert browser.run(GROUND) == dark


def test_a_part_that_is_pointed_at_shows_its_edges(
    browser: Browser, pages: dict[str, Path], results: dict[str, Result]
) -> None:
    browser.open(pages["holds"], DESK)
    told = "document.getElementById('circuit-readout').textContent"
    resting = browser.run(told)
    browser.run("document.querySelector('svg.circuit.wide [data-node=m0]').focus()")
    said = browser.run(told)
    score = next(node.score for node in results["holds"].chosen.nodes if node.name == "m0")
    assert said.startswith(f"MLP m0: {score:+.4f} in this circuit. In: input → m0: ")
    assert " Out: m0 → " in said
    marked = browser.run("[...document.querySelectorAll('.wide .line.on')].map((l) => [l.dataset.from, l.dataset.to])")
    assert marked and all("m0" in ends for ends in marked)
    browser.press("Escape")
    assert browser.run(told) == resting
    assert browser.run("document.querySelectorAll('.line.on').length") == 0


def test_a_tap_on_a_phone_does_the_same(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["holds"], PHONE)
    browser.call("Emulation.setTouchEmulationEnabled", enabled=True)
    part = "document.querySelector('svg.circuit.tall [data-node=m0]')"
    x, y = browser.run(
        f"(() => {{ {part}.scrollIntoView({{block: 'center'}}); const box = {part}.getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    browser.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    deadline = time.monotonic() + 5
    while not (said := browser.run("document.getElementById('circuit-readout').textContent")).startswith("MLP m0: "):
        assert time.monotonic() < deadline, said
    browser.call("Emulation.setTouchEmulationEnabled", enabled=False)


def test_the_tab_key_reaches_every_part_of_the_drawing_shown(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["tiny"], DESK)
    reached = []
    for _ in range(12):
        browser.press("Tab")
        reached.append(browser.run("document.activeElement.dataset.node || document.activeElement.id || ''"))
    assert [name for name in reached if name in ("input", "a0.h0", "m0", "logits")] == [
        "input",
        "a0.h0",
        "m0",
        "logits",
    ]
    assert "theme" in reached


@pytest.mark.parametrize("size", [PHONE, DESK], ids=str)
def test_the_arrow_keys_read_the_heat_map(
    browser: Browser, pages: dict[str, Path], results: dict[str, Result], size: tuple[int, int]
) -> None:
    browser.open(pages["holds"], size)
    told = "document.getElementById('heat-readout').textContent"
    shape = "tall" if size == PHONE else "wide"
    browser.run(f"document.querySelector('svg.heat.{shape}').focus()")
    # Wide, layers run to the right and heads upwards; tall, heads run to the right and layers upwards.
    start = (29, 0) if shape == "tall" else (0, 8)
    assert browser.run(told).startswith(f"head {start[0]}.{start[1]}: ")
    browser.press("ArrowRight")
    browser.press("ArrowDown")
    layer, head = (28, 1) if shape == "tall" else (1, 7)
    value = results["holds"].heads[layer][head]
    said = browser.run(told)
    assert said.startswith(f"head {layer}.{head}: ")
    assert float(said.split(": ")[1].replace("−", "-")) == pytest.approx(value, abs=6e-5)


def test_a_hostile_prompt_runs_nothing(browser: Browser, results: dict[str, Result], tmp_path: Path) -> None:
    evil = "<script>window.pwned=1</script><img src=x onerror='window.pwned=2'>"
    data = results["tiny"].model_dump()
    data["question"] |= {"clean": evil, "task": evil, "description": evil}
    page = tmp_path / "evil.html"
    page.write_text(html(Result.model_validate(data)))
    browser.open(page, DESK)
    assert browser.run("window.pwned === undefined")
    # Even if a script came in by another way, the page's own policy stops it.
    browser.run(
        "const s = document.createElement('script'); s.textContent = 'window.pwned = 3'; document.body.append(s)"
    )
    assert browser.run("window.pwned === undefined")


def test_it_prints_on_paper_in_light_colours(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["holds"], (718, 1000), dark=True)
    browser.call(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    assert browser.run("document.documentElement.scrollWidth") <= 718
    assert browser.run("getComputedStyle(document.body).color") == "rgb(27, 31, 36)"
    assert browser.run("getComputedStyle(document.getElementById('theme')).display") == "none"
    browser.call("Emulation.setEmulatedMedia", media="")
    assert len(browser.call("Page.printToPDF", printBackground=True)["data"]) > 20_000


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_picture_can_be_taken(pages: dict[str, Path], tmp_path: Path, theme: Any) -> None:
    path = picture.take(pages["tiny"], tmp_path / "report.png", size=(600, 400), theme=theme, scale=2.0)
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (1200, 800)


# ------------------------------------------------------------------------------------------------------ leaderboard

ROWS = """[...document.querySelectorAll("#board tbody tr")].filter((row) => !row.hidden)
  .map((row) => row.dataset.model + " " + row.dataset.method)"""
HEAD = """[...document.querySelectorAll("#board thead th")].find((head) => head.textContent.trim() === %s)"""


@pytest.mark.parametrize("size", [PHONE, DESK, (320, 640)], ids=str)
def test_a_leaderboard_opens_without_a_complaint_a_request_or_a_scroll_bar(
    browser: Browser, leaderboard_page: Path, size: tuple[int, int]
) -> None:
    browser.open(leaderboard_page, size, dark=size == PHONE)
    assert browser.run("document.documentElement.scrollWidth") <= size[0]
    assert browser.complaints() == []
    assert browser.requests() == {leaderboard_page.as_uri()}


def test_the_heads_of_a_leaderboard_sort_and_blank_cells_stay_last(browser: Browser, leaderboard_page: Path) -> None:
    browser.open(leaderboard_page, DESK)
    odd = "large <script>alert(1)</script>"
    for name, first, second in (
        ("CPR", ["small eap-ig", "large eap", "small eap", odd], [odd, "small eap", "large eap", "small eap-ig"]),
        ("Search", ["small eap-ig", odd, "large eap", "small eap"], ["small eap", "large eap", odd, "small eap-ig"]),
    ):
        for order, rows in (("descending", first), ("ascending", second)):
            browser.run(HEAD % json.dumps(name) + ".querySelector('button').click()")
            assert browser.run(ROWS) == [*rows, "small exact"], (name, order)
            assert browser.run(HEAD % json.dumps(name) + ".getAttribute('aria-sort')") == order
    browser.run(HEAD % '"Method"' + ".querySelector('button').click()")
    methods = [row.partition(" ")[2] for row in browser.run(ROWS)]
    assert methods == ["<script>alert(1)</script>", "eap", "eap", "eap-ig", "exact"]
    assert browser.run("document.querySelectorAll('#board [aria-sort]').length") == 1


def test_a_leaderboard_filters_by_model_method_and_whether_there_are_numbers(
    browser: Browser, leaderboard_page: Path
) -> None:
    browser.open(leaderboard_page, DESK)

    def choose(script: str) -> list[str]:
        browser.run(f"{script}; document.getElementById('filters').dispatchEvent(new Event('input'))")
        return browser.run(ROWS)

    fields = "document.getElementById('filters').elements"
    assert choose(f"{fields}.model.value = 'small'") == ["small eap", "small eap-ig", "small exact"]
    assert choose(f"{fields}.done.checked = true") == ["small eap", "small eap-ig"]
    assert choose(f"{fields}.method.value = ' EAP-i'") == ["small eap-ig"]
    assert browser.run("document.getElementById('shown').textContent") == "1 of 5 cells"
    assert len(choose(f"{fields}.model.value = ''; {fields}.done.checked = false; {fields}.method.value = ''")) == 5


def test_a_cell_of_a_leaderboard_opens_its_report_and_the_keyboard_is_enough(
    browser: Browser, leaderboard_page: Path
) -> None:
    browser.open(leaderboard_page, DESK)
    assert browser.run("document.querySelector('#board tbody a').getAttribute('href')") == "cells/eap.html"
    browser.run("document.querySelector('#board .sort').focus()")
    browser.press("Enter")
    browser.run(HEAD % '"CPR"' + ".querySelector('button').focus()")
    assert browser.run("document.activeElement.textContent") == "CPR"
