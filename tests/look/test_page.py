"""The page in a real Chromium, on made-up pairs: what is seen, dragged, fitted and stored."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import uvicorn

sys.path.insert(0, str(Path(__file__).parent))

from browser import Page, shown_browser
from made_up_results import write_fundus, write_head

from retreg.files import read_transform
from retreg.fitting import fit_tps
from retreg.geometry import Grid
from retreg_server.commands.serve import listening_socket
from retreg_server.reporting.result_reader import read_result
from retreg_server.serving.folder_app import ResultShelf, create_folder_app

TOKEN = "the-token-of-this-test"
WIDTH, HEIGHT = 1280, 860


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Page]:
    with shown_browser(tmp_path_factory.mktemp("profile"), WIDTH, HEIGHT) as opened:
        yield opened


@pytest.fixture
def shown(page, tmp_path):
    """Opens the page for a result that a function writes; gives the folder."""
    servers = []

    def show(write) -> Path:
        write(tmp_path)
        shelf = ResultShelf([read_result(tmp_path)])
        listener = listening_socket("127.0.0.1", 0)
        config = uvicorn.Config(create_folder_app(shelf, TOKEN), log_config=None)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        servers.append((server, thread, listener))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/look/{next(iter(shelf.ids))}"
        page.errors.clear()
        page.open(f"{address}#token={TOKEN}")
        page.wait_for("document.getElementById('word').textContent")
        return tmp_path

    yield show
    for server, thread, listener in servers:
        server.should_exit = True
        thread.join()
        listener.close()


def box(page: Page) -> dict[str, float]:
    """Where the images are on the page."""
    return json.loads(page.run(
        "(({left, top, width, height}) => JSON.stringify({left, top, width, height}))"
        "(document.getElementById('marks').getBoundingClientRect())"
    ))  # fmt: skip


def pixel_in_picture(page: Page, size: tuple[int, int], point) -> tuple[float, float]:
    """Where a point of a picture of that size is seen on the page."""
    area, (width, height) = box(page), size
    scale = min(area["width"] / width, area["height"] / height)
    left = area["left"] + (area["width"] - width * scale) / 2
    top = area["top"] + (area["height"] - height * scale) / 2
    return left + (point[0] + 0.5) * scale, top + (point[1] + 0.5) * scale


def choose_point(page: Page, number: int) -> None:
    """In the list of keypoints."""
    page.run(
        f"(list => {{ list.selectedIndex = {number}; list.dispatchEvent(new Event('input')); }})"
        "(document.getElementById('list'))"
    )


def choose(page: Page, control: str, value: str) -> None:
    page.run(
        f"(e => {{ e.value = '{value}'; e.dispatchEvent(new Event('input')); }})"
        f"(document.getElementById('{control}'))"
    )


def stored(page: Page, folder: Path, number: int = 1) -> Path:
    page.run("document.getElementById('store').click()")
    page.wait_for("/Stored as/.test(document.getElementById('stored').textContent)")
    return folder / f"edited-{number}"


def test_the_page_says_the_verdict_and_keeps_the_token_out_of_the_address(page, shown):
    shown(write_fundus)
    assert page.run("document.getElementById('word').textContent") == "accept"
    assert page.run("location.hash") == ""
    assert page.run("document.getElementById('list').length") == 12
    assert page.run("document.querySelector('.volume').hidden") is True
    assert page.errors == []


def test_a_dragged_point_leads_to_the_transform_that_python_finds(page, shown):
    folder = shown(write_fundus)
    before = read_result(folder)
    place = before.result.fixed_keypoints.points[4]
    goal = place + [9.0, -6.0, 0.0]
    size = before.fixed.grid.size[:2]
    page.drag(pixel_in_picture(page, size, place), pixel_in_picture(page, size, goal))
    assert page.run("document.getElementById('word').textContent") == "check"
    after = read_result(stored(page, folder), folder / "moving.png").result
    moved = after.moving_keypoints.points[4]
    expected = before.result.transform(goal[None])[0]  # where the picture had it, to half a pixel
    np.testing.assert_allclose(moved, expected, atol=1.0)
    np.testing.assert_allclose(after.transform(place[None])[0], moved, atol=0.1)  # of a file
    far = np.array([[5.0, 5.0, 0.0]])
    np.testing.assert_allclose(after.transform(far), before.result.transform(far), atol=1e-3)
    assert after.quality.verdict == "check"
    assert after.provenance["edited"]["by"] == "hand"
    assert page.errors == []


def test_the_smoothing_that_is_set_is_the_one_that_is_stored(page, shown):
    folder = shown(write_fundus)
    before = read_result(folder).result
    choose(page, "way", "tps")
    choose(page, "smoothing", "0")
    choose_point(page, 2)
    page.run("document.getElementById('toggle').click()")
    page.wait_for("/off/.test(document.getElementById('list').options[2].text)")
    residuals = page.run("[...document.getElementById('list').options].map(o => o.text)")
    folder = stored(page, folder)
    fixed, moving = before.fixed_keypoints.points, before.moving_keypoints.points
    weights = np.arange(12) != 2
    spline = fit_tps(fixed, moving, weights.astype(float), 1.0)
    probes = np.random.default_rng(0).uniform(0, 200, (50, 3)) * [1, 1, 0]
    np.testing.assert_allclose(read_transform(folder)(probes), spline(probes), atol=0.03)
    for text, left in zip(residuals, np.linalg.norm(spline(fixed) - moving, axis=1), strict=True):
        assert float(text.split(": ")[1].split(" ")[0]) == pytest.approx(left, rel=5e-3)
    assert page.errors == []


CTRL = 2
write_coarse_head = partial(write_head, spacing_mm=4.0)


@pytest.fixture
def small(page: Page) -> Iterator[None]:
    """The page is small, so that it is drawn quickly."""
    page.appear(640, 480)
    yield
    page.appear(WIDTH, HEIGHT)


def wheel(page: Page, place: Sequence[float], amount: float, modifiers: int = 0) -> None:
    page.send(
        "Input.dispatchMouseEvent", type="mouseWheel", x=place[0], y=place[1], deltaX=0,
        deltaY=amount, modifiers=modifiers,
    )  # fmt: skip


def in_slice(page: Page, grid: Grid, point: np.ndarray, number: int) -> dict[str, float]:
    """Where a point of a volume is seen in one of its slices as long as all of it is seen: x, y and
    the pixels per mm."""
    told = {"size": grid.size, "worldFromIndex": grid.world_from_index.tolist(),
            "indexFromWorld": grid.index_from_world.tolist()}  # fmt: skip
    return page.run(f"""(async () => {{
      const {{ panelsOf, pixelOf }} = await import(new URL("page/panels.js", location.href));
      const grid = {json.dumps(told)};
      const box = document.getElementById("marks").getBoundingClientRect();
      const panel = panelsOf(grid, box.width, box.height)[{number}];
      const {{ x, y }} = pixelOf(panel, grid, {point.tolist()});
      return {{ x: x + box.left, y: y + box.top, scale: panel.scale }};
    }})()""")


def slices(page: Page) -> list[int]:
    return page.run("[0, 1, 2].map(c => Number(document.getElementById(`slice${c}`).value))")


def drawn(page: Page) -> list[int]:
    return page.run(
        "(gl => { document.getElementById('amount').dispatchEvent(new Event('input'));"
        "const p = new Uint8Array(4 * 900);"
        "gl.readPixels((gl.canvas.width >> 1) - 15, (gl.canvas.height >> 1) - 15, 30, 30,"
        " gl.RGBA, gl.UNSIGNED_BYTE, p); return [...p]; })"
        "(document.getElementById('images').getContext('webgl2'))"
    )


def test_a_picture_is_made_larger_by_the_wheel_around_the_mouse(page, shown):
    folder = shown(write_fundus)
    before = read_result(folder)
    size, place = before.fixed.grid.size[:2], before.result.fixed_keypoints.points[5]
    start = pixel_in_picture(page, size, place)
    one_pixel = pixel_in_picture(page, size, place + [1, 0, 0])[0] - start[0]
    choose(page, "side", "fixed")
    wheel(page, start, -500)
    larger = 1.002**500
    page.drag(start, (start[0] + 30, start[1]))
    after = read_result(stored(page, folder), folder / "moving.png").result
    shift = after.fixed_keypoints.points[5] - place
    np.testing.assert_allclose(shift, [30 / one_pixel / larger, 0, 0], atol=0.4)
    assert page.errors == []


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("number", range(3))
def test_a_volume_is_made_larger_by_ctrl_and_the_wheel_around_the_mouse(page, shown, number):
    folder = shown(write_coarse_head)
    before = read_result(folder)
    points = before.result.fixed_keypoints.points
    choose(page, "side", "fixed")
    choose_point(page, 3)
    at = in_slice(page, before.fixed.grid, points[3], number)
    mouse = np.round([at["x"], at["y"]])
    larger = 1.002**500
    wheel(page, mouse, -500, CTRL)
    page.drag(mouse, mouse + [30, 0])  # the point comes to where the mouse is
    after = read_result(stored(page, folder), folder / "moving.nrrd").result
    shift = after.fixed_keypoints.points - points
    way = mouse + [30, 0] - (mouse + larger * (np.array([at["x"], at["y"]]) - mouse))
    assert np.linalg.norm(shift[3]) == pytest.approx(np.hypot(*way) / at["scale"] / larger, abs=0.1)
    np.testing.assert_allclose(np.delete(shift, 3, axis=0), 0, atol=1e-6)
    assert page.errors == []


@pytest.mark.usefixtures("small")
def test_the_slices_of_a_volume_are_made_larger_and_pulled_together(page, shown):
    grid = read_result(shown(write_coarse_head)).fixed.grid
    page.run("document.getElementById('points').click()")
    whole, at = drawn(page), in_slice(page, grid, grid.centre, 0)
    wheel(page, (at["x"], at["y"]), -400, CTRL)
    larger = drawn(page)
    assert larger != whole, "the slice in the middle follows the first one"
    page.drag((at["x"], at["y"]), (at["x"] + 40, at["y"]))
    assert drawn(page) not in (whole, larger)
    page.run("document.getElementById('marks').dispatchEvent(new MouseEvent('dblclick'))")
    assert drawn(page) == whole
    page.run("document.getElementById('marks').focus()")
    for keys, is_whole in (("++", False), ("--", True), ("+", False), ("0", True)):
        for key in keys:
            page.press(key)
        assert (drawn(page) == whole) is is_whole, keys
    assert page.errors == []


@pytest.mark.usefixtures("small")
def test_a_click_and_the_wheel_still_go_to_other_slices_of_a_volume(page, shown):
    grid = read_result(shown(write_coarse_head)).fixed.grid
    page.run("document.getElementById('points').click()")
    goal = np.array([n // 2 for n in grid.size]) + [4, -3, 5]
    for number in (0, 1):
        at = in_slice(page, grid, grid.world(goal[None].astype(float))[0], number)
        page.drag((at["x"], at["y"]), (at["x"] + 1, at["y"]))
    assert slices(page) == pytest.approx(goal, abs=1)
    before = slices(page)
    wheel(page, (at["x"], at["y"]), 100)
    assert sum(np.abs(np.subtract(slices(page), before))) == 1
    assert page.errors == []


@pytest.mark.usefixtures("small")
def test_a_chosen_point_that_is_out_of_sight_comes_into_sight(page, shown):
    stored_result = read_result(shown(write_coarse_head))
    grid = stored_result.fixed.grid
    page.run("document.getElementById('points').click()")
    at = in_slice(page, grid, grid.corners()[0] * 0.8 + grid.centre * 0.2, 1)
    wheel(page, (at["x"], at["y"]), -900, CTRL)
    away = drawn(page)
    choose_point(page, 2)
    seen = drawn(page)
    assert seen != away
    assert max(seen[::4]) > 0, "it lies within the head"
    assert page.errors == []


@pytest.mark.usefixtures("small")
def test_two_fingers_make_a_volume_larger_around_the_place_between_them(page, shown):
    grid = read_result(shown(write_coarse_head)).fixed.grid
    page.run("document.getElementById('points').click()")
    whole, at = drawn(page), in_slice(page, grid, grid.centre, 1)
    at = {name: round(value) for name, value in at.items()}  # as a mouse has it
    for kind, apart in (("down", 20), ("move", 60), ("up", 60)):
        for finger, side in enumerate((-1, 1)):
            place = json.dumps({"pointerId": finger, "bubbles": True, "clientY": at["y"],
                                "clientX": at["x"] + side * apart})  # fmt: skip
            page.run(
                "document.getElementById('marks').dispatchEvent("
                f"new PointerEvent('pointer{kind}', {place}))"
            )
    fingers = drawn(page)
    assert fingers != whole
    page.run("document.getElementById('marks').dispatchEvent(new MouseEvent('dblclick'))")
    assert drawn(page) == whole
    wheel(page, (at["x"], at["y"]), -np.log(3) / np.log(1.002), CTRL)
    away, nothing = (np.abs(np.subtract(drawn(page), other)).mean() for other in (fingers, whole))
    assert away < 0.3 * nothing, "as much larger as by the wheel"
    assert page.errors == []


def test_two_fingers_make_a_picture_larger_and_a_double_click_shows_it_whole(page, shown):
    shown(write_fundus)
    whole, area = drawn(page), box(page)
    x, y = area["left"] + area["width"] / 2, area["top"] + area["height"] / 2 + 25
    page.send("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
    for kind, apart in (("touchStart", 20), ("touchMove", 50), ("touchMove", 90)):
        fingers = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        page.send("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)
    page.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    page.send("Emulation.setTouchEmulationEnabled", enabled=False)
    assert drawn(page) != whole
    page.run("document.getElementById('marks').dispatchEvent(new MouseEvent('dblclick'))")
    assert drawn(page) == whole
    assert page.errors == []


def test_a_slider_leads_to_a_new_picture_within_50_ms(page, shown):
    shown(partial(write_fundus, size=512, count=128))
    choose(page, "way", "tps")
    times, widths = page.run("""(async () => {
      const slider = document.getElementById('smoothing');
      const gl = document.getElementById('images').getContext('webgl2');
      const times = [], widths = [];
      for (let n = 0; n < 20; n++) {
        const begun = performance.now();
        slider.value = -2 + 0.1 * n;
        slider.dispatchEvent(new Event('input'));
        gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));  // drawn by now
        times.push(performance.now() - begun);
        await new Promise((done) => { setTimeout(done, 20); });
      }
      await new Promise((done) => { setTimeout(done, 600); });
      widths.push(gl.canvas.width, gl.canvas.clientWidth);
      return [times, widths];
    })()""")
    assert min(times) <= 50, "the quickest counts: others may use the machine"
    assert widths[0] == widths[1], "at rest every pixel is drawn"
    assert page.errors == []


def test_points_are_moved_by_the_keyboard(page, shown):
    folder = shown(write_fundus)
    before = read_result(folder).result
    choose(page, "side", "fixed")
    page.run("document.getElementById('marks').focus()")
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        page.press(key)
    after = read_result(stored(page, folder), folder / "moving.png").result
    moved = after.fixed_keypoints.points - before.fixed_keypoints.points
    np.testing.assert_allclose(moved[0], [2, -1, 0], atol=1e-6)
    np.testing.assert_allclose(moved[1:], 0, atol=1e-6)


@pytest.mark.parametrize("mode", range(5))
def test_every_comparison_shows_both_pictures(page, shown, mode):
    shown(write_fundus)
    seen = set()
    for amount in ("0.25", "0.75"):
        choose(page, "mode", str(mode))
        choose(page, "amount", amount)
        seen.add(tuple(page.run(
            "(gl => { document.getElementById('amount').dispatchEvent(new Event('input'));"
            "const p = new Uint8Array(4 * 40 * 40);"
            "gl.readPixels((gl.canvas.width >> 1) - 80, (gl.canvas.height >> 1) - 20, 40, 40,"
            " gl.RGBA, gl.UNSIGNED_BYTE, p); return [...p]; })"
            "(document.getElementById('images').getContext('webgl2'))"
        )))  # fmt: skip
    assert len(seen) == 2
    assert all(max(pixels[::4]) > 0 for pixels in seen)


def test_a_volume_is_seen_in_three_slices_and_its_points_can_be_moved(page, shown):
    folder = shown(write_head)
    assert page.run("document.querySelector('div.volume').hidden") is False
    before = read_result(folder).result
    page.run("document.getElementById('marks').focus()")
    page.press("ArrowLeft")  # of the moving image, to the right of the patient
    after = read_result(stored(page, folder), folder / "moving.nrrd").result
    shift = after.moving_keypoints.points - before.moving_keypoints.points
    assert 0.5 < np.linalg.norm(shift[0]) < 5
    np.testing.assert_allclose(shift[1:], 0, atol=1e-6)
    assert page.errors == []


def test_without_the_token_the_page_asks_for_it(page, shown):
    shown(write_fundus)
    page.open(page.run("location.href"))
    page.wait_for("document.getElementById('login') && !document.getElementById('login').hidden")
    assert page.run("document.querySelector('main').hidden") is True
    page.run(f"document.getElementById('token').value = '{TOKEN}'")
    page.run("document.querySelector('#login button').click()")
    page.wait_for("!document.querySelector('main').hidden")
    assert page.run("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    assert page.run(f"location.href.includes('{TOKEN}')") is False
