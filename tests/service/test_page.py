"""The page in a real browser, against both ports of a service."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect, sync_playwright

from evoquality import Client
from evoquality.contract import Benchmark
from service.engine.protocol import Prompt, Sampling
from tests.service.conftest import KEY, Listening, picture

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
REFUSED = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d")
"""The browser's own note of a request that the service refused; what the page made of it is tested."""
DARK, GREY, BRIGHT = picture(10), picture(120), picture(240)
TALLEST, NARROWEST = 800, 320

DROP = """([selector, files]) => {
  const dataTransfer = new DataTransfer();
  for (const [name, bytes] of files) dataTransfer.items.add(new File([Uint8Array.from(bytes)], name));
  const target = document.querySelector(selector);
  target.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-dev-shm-usage"]  # root in a container has neither
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=flags)


@contextmanager
def opened(
    browser: Browser, place: Listening, view: str = "score", width: int = 1100, **context: object
) -> Iterator[Page]:
    """A page that must say nothing on its console and talk to nobody but the service."""
    said: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not REFUSED.match(message.text):
            said.append(message.text)

    with browser.new_context(viewport={"width": width, "height": TALLEST}, **context) as window:
        page = window.new_page()
        page.set_default_timeout(5000)
        hosts: set[str] = set()
        page.on("console", hear)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto(f"{place.url}/#{view}")
        yield page
        assert said == []
        assert hosts - {""} <= {urlsplit(url).netloc for url in (place.url, place.operator_url)}


@pytest.fixture
def page(browser: Browser, listening: Listening) -> Iterator[Page]:
    with opened(browser, listening) as page:
        yield page


def drop(page: Page, files: Mapping[str, bytes], on: str = "body") -> None:
    page.evaluate(DROP, [on, [[name, list(data)] for name, data in files.items()]])


def turn_to(page: Page, view: str) -> None:
    page.get_by_role("navigation").get_by_role("link", name=view).click()


def expect_wall(page: Page, *names: str) -> None:
    """Waits for the pictures on the wall to have this order."""
    expect(page.locator("#tiles .name")).to_have_text(names)


def test_dropped_pictures_get_the_services_scores(page: Page, listening: Listening):
    drop(page, {"dark.png": DARK, "bright.png": BRIGHT})
    values = page.locator(".cards .value b")
    expect(values).to_have_count(2)
    with Client(listening.url) as client:
        scores = [client.score(image).score for image in (DARK, BRIGHT)]
    assert values.all_inner_texts() == [f"{score:.2f}" for score in scores]
    expect(page.locator(".card").first).to_contain_text("32 × 32, seen as 28 × 28")
    expect(page.get_by_role("img", name="Distribution of the score")).to_have_count(2)
    expect(page.locator("#serving")).to_contain_text(listening.world.first)
    expect(page.get_by_role("status").first).to_have_text("2 of 2 pictures scored.")


def test_chosen_files_arrive_as_they_are(page: Page, listening: Listening):
    page.set_input_files("#files", {"name": "a.bmp", "mimeType": "image/bmp", "buffer": picture(77, kind="BMP")})
    expect(page.locator(".cards .value")).to_have_count(1)
    shown = listening.world.engine.asked[-1][0].images[0]
    assert shown.getpixel((0, 0)) == (77, 77, 77)


def test_a_file_name_is_text_whatever_it_holds(page: Page):
    name = "<img src=x onerror=alert(1)>&amp;.png"
    page.on("dialog", lambda dialog: pytest.fail("the name ran as a script"))
    drop(page, {name: GREY})
    expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
    turn_to(page, "Wall")
    expect(page.locator("#tiles .name")).to_have_text(name)


def test_a_file_that_is_not_a_picture_is_refused_in_a_sentence_beside_those_that_are(page: Page):
    drop(page, {"note.txt": b"no picture", "grey.png": GREY})
    expect(page.locator(".cards .problem")).to_contain_text("not a complete image")
    expect(page.locator(".cards .value")).to_have_count(1)
    page.get_by_role("button", name="Remove note.txt").click()
    expect(page.locator(".cards .problem")).to_have_count(0)


def test_sampled_answers_are_asked_for_as_chosen(page: Page, listening: Listening):
    page.get_by_role("radio", name="Sampled").check()
    page.get_by_label("Answers").fill("3")
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_label("Seed").fill("7")
    drop(page, {"grey.png": GREY})
    expect(page.locator(".cards .facts")).to_contain_text("3 answers")
    assert listening.world.engine.asked[-1][1] == Sampling(3, 0.5, 7)


def test_reasoning_is_shown_where_the_model_thinks(browser: Browser, make_listening: Callable[..., Listening]):
    def thought(prompt: Prompt, sampling: Sampling, index: int) -> str:
        return r"<think>Sharp & <b>clean</b>.</think> \boxed{4.2}"

    place = make_listening(profile="evoquality")
    place.world.engine.answer = thought
    with opened(browser, place) as page:
        expect(page.get_by_role("radio", name="Expected")).to_be_checked()
        drop(page, {"grey.png": GREY})
        expect(page.locator(".cards .value")).to_contain_text("4.20")
        expect(page.locator(".cards .facts")).to_contain_text("expected, 4 thoughts")
        page.get_by_text("Reasoning").last.click()
        expect(page.locator(".texts li").first).to_contain_text("Sharp & <b>clean</b>.")


def test_two_pictures_are_compared_in_both_orders(page: Page):
    turn_to(page, "Compare")
    drop(page, {"dark.png": DARK}, on=".slot:first-of-type")
    drop(page, {"bright.png": BRIGHT}, on=".slot:last-of-type")
    verdict = page.locator(".result h2")
    expect(verdict).to_have_text("B looks better")
    expect(page.locator("table tbody tr")).to_have_count(2)
    expect(page.locator(".details")).to_contain_text("points for the picture shown first")
    page.get_by_label("Tie margin").press("End")
    expect(verdict).to_have_text("A tie")
    page.get_by_label("Tie margin").press("Home")
    page.get_by_role("button", name="Swap").click()
    expect(verdict).to_have_text("A looks better")
    page.get_by_role("radio", name="Sampled").check()
    expect(page.locator("table")).to_contain_text("4 : 0")


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_the_wall_orders_itself_as_answers_come(browser: Browser, listening: Listening, motion: str):
    with opened(browser, listening, "wall", reduced_motion=motion) as page:
        drop(page, {"dark.png": DARK, "grey.png": GREY})
        expect(page.locator("#tiles .name")).to_have_text(["grey.png", "dark.png"])
        listening.world.engine.seconds = 0.3
        drop(page, {"bright.png": BRIGHT})
        expect(page.locator("#tiles [data-state=asking] .name")).to_have_text("bright.png")
        expect_wall(page, "grey.png", "dark.png", "bright.png")
        expect(page.locator("#tiles .name")).to_have_text(["bright.png", "grey.png", "dark.png"])
        moving = page.evaluate("document.querySelector('.tile').getAnimations().length > 0")
        assert moving == (motion == "no-preference")


def test_the_wall_can_be_ordered_by_comparisons(page: Page):
    turn_to(page, "Wall")
    drop(page, {"dark.png": DARK, "bright.png": BRIGHT, "grey.png": GREY})
    page.get_by_role("radio", name="Comparisons").check()
    expect(page.locator("#view-wall .said")).to_contain_text("comparisons of 3 possible")
    expect_wall(page, "bright.png", "grey.png", "dark.png")
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator("#view-wall .said")).to_have_text("Two pictures or more can be ranked.")


def test_many_pictures_are_scored_in_few_requests(page: Page):
    posted: list[str] = []
    page.on("request", lambda request: posted.append(request.url) if request.method == "POST" else None)
    turn_to(page, "Wall")
    drop(page, {f"{level}.png": picture(level) for level in range(0, 250, 10)})
    expect(page.locator("#tiles [data-state=scored]")).to_have_count(25)
    expect_wall(page, *(f"{level}.png" for level in range(240, -1, -10)))
    assert [urlsplit(url).path for url in posted] == ["/v1/score/batch"] * 2


def test_an_answer_that_ends_early_leaves_no_picture_asking(page: Page):
    line = '{"index": 0, "result": null, "problem": {"detail": "Too dark."}}'
    page.route("**/v1/score/batch", lambda route: route.fulfill(content_type="application/x-ndjson", body=line + "\n"))
    drop(page, {"dark.png": DARK, "bright.png": BRIGHT})
    told = page.locator(".cards .card").filter
    expect(told(has_text="dark.png").locator(".problem")).to_have_text("Too dark.")
    expect(told(has_text="bright.png").locator(".problem")).to_have_text("The service ended its answer early.")


def test_versions_show_what_was_measured_of_them(page: Page, listening: Listening):
    world = listening.world
    with Client(listening.operator_url, KEY) as operators:
        operators.record_benchmarks(world.first, {"blur": Benchmark(n=160, plcc=0.5, srcc=0.5)})
        operators.record_benchmarks(world.second, {"blur": Benchmark(n=160, plcc=0.75, srcc=0.7)})
    turn_to(page, "Versions")
    expect(page.locator(".benchmark")).to_contain_text("160 pictures")
    expect(page.locator(".benchmark li")).to_have_text([re.compile("0.50"), re.compile("0.75")])
    heights = page.eval_on_selector_all(".benchmark rect", "bars => bars.map(bar => +bar.getAttribute('height'))")
    assert heights == [0.5, 0.75]
    expect(page.locator(".version.active")).to_contain_text(world.first)


def test_an_operator_promotes_and_rolls_back_with_the_key_alone(page: Page, listening: Listening):
    world = listening.world
    turn_to(page, "Versions")
    page.get_by_label("Address").fill(listening.operator_url)
    said = page.locator("#view-versions > .said")

    def swap(verb: str, version: str) -> None:
        page.get_by_role("button", name=f"{verb} to {version}").click()
        page.get_by_role("dialog").get_by_role("button", name=verb).click()

    page.get_by_label("Key").last.fill("wrong")
    swap("Promote", world.second)
    expect(said).to_contain_text("operators' key")
    assert world.service.swap_lock.version.id == world.first
    page.get_by_label("Key").last.fill(KEY)
    swap("Promote", world.second)
    expect(said).to_contain_text(f"{world.second} serves. New requests waited")
    expect(page.locator(".version.active")).to_contain_text(world.second)
    expect(page.locator("#serving")).to_contain_text(world.second)
    swap("Roll back", world.first)
    expect(said).to_contain_text(f"{world.first} serves")
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


def test_without_the_mouse(page: Page, listening: Listening):
    def focused() -> str:
        return page.evaluate("document.activeElement.textContent.trim() || document.activeElement.id")

    order = []
    for _ in range(7):
        page.keyboard.press("Tab")
        order.append(focused())
        assert page.evaluate("document.activeElement.matches(':focus-visible')")
    assert order == ["Skip to the pictures", "EvoQuality", "Score", "Compare", "Wall", "Versions", "files"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Versions of the model")
    expect(page.locator(".version")).to_have_count(2)
    page.get_by_label("Address").fill(listening.operator_url)
    page.get_by_label("Key").last.fill(KEY)
    button = page.get_by_role("button", name=f"Promote to {listening.world.second}")
    for _ in range(20):
        page.keyboard.press("Shift+Tab")
        if button.evaluate("button => button === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert listening.world.service.swap_lock.version.id == listening.world.first
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#view-versions > .said")).to_contain_text(f"{listening.world.second} serves")


def test_a_narrow_screen_needs_no_sideways_scrolling(browser: Browser, listening: Listening):
    with Client(listening.operator_url, KEY) as operators:
        operators.record_benchmarks(listening.world.first, {"a_rather_long_name": Benchmark(n=1, plcc=0.5, srcc=0.5)})
    with opened(browser, listening, width=NARROWEST) as page:
        page.get_by_role("radio", name="Sampled").check()
        drop(page, {"a" * 80 + ".png": DARK, "b.png": GREY, "c.png": BRIGHT, "d.txt": b"no picture"})
        expect(page.locator(".cards .value")).to_have_count(3)
        for view in ("Score", "Compare", "Wall", "Versions"):
            turn_to(page, view)
            expect(page.locator("section:visible li").first).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") == NARROWEST, view


def test_a_key_is_asked_for_where_the_service_wants_one(
    browser: Browser, make_listening: Callable[..., Listening], tmp_path: Path
):
    digest = hashlib.sha256(b"a caller's").hexdigest()
    (tmp_path / "keys.toml").write_text(f'[[keys]]\nname = "caller"\nsha256 = "{digest}"\n')
    with opened(browser, make_listening(keys_file=tmp_path / "keys.toml")) as page:
        field = page.locator("#key-value")
        expect(field).to_be_focused()
        drop(page, {"grey.png": GREY})
        expect(page.locator(".cards .pending")).to_have_text("Waiting for the key.")
        field.fill("wrong")
        field.press("Enter")
        expect(page.locator("#key")).to_contain_text("does not know this key")
        field.fill("a caller's")
        field.press("Enter")
        expect(page.locator(".cards .value")).to_have_count(1)
        expect(page.locator("#key")).to_be_hidden()


def test_a_busy_service_is_asked_again_when_it_says(page: Page):
    detail = "Too many requests."
    refusals = [{"status": 429, "headers": {"Retry-After": "1"}, "json": {"detail": detail, "code": "too_many"}}]

    def answer(route: Route) -> None:
        if refusals:
            route.fulfill(**refusals.pop())
        else:
            route.continue_()

    page.route("**/v1/score", answer)
    drop(page, {"grey.png": GREY})
    expect(page.locator(".cards .pending")).to_have_text(f"{detail} Asking again in 1 s.")
    expect(page.locator(".cards .value")).to_have_count(1)
