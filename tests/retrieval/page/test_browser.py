"""The page in a browser, by clicking and by keyboard, at a desk's and at a phone's width."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import uvicorn

from spml_dist import open_index
from spml_dist.retrieval.page.application import application
from tests.inference.conftest import stripes

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""None = the one that playwright has installed, if any"""
expect = playwright.expect


@contextlib.contextmanager
def serving(app) -> Iterator[str]:
    """The address of an application that is served by a thread."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def site(built) -> Iterator[str]:
    collection = open_index(built)
    collection.index.classes = ("<b>red</b>", "green", "blue")  # names are shown, never run
    with serving(application(collection, ["127.0.0.1"])) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        if BROWSER is None and not Path(started.chromium.executable_path).exists():
            pytest.skip("no Chromium is installed")
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


DESK, PHONE = (1280, 900, "light"), (390, 800, "dark")


@pytest.fixture
def page(chromium, site, request):
    """The page, opened; what it complains of fails the test."""
    width, height, scheme = getattr(request, "param", DESK)
    opened = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    opened.set_default_timeout(60_000)
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    opened.goto(site)
    yield opened
    opened.close()
    assert not problems


@pytest.mark.parametrize("page", [DESK, PHONE], ids=["desk", "phone"], indirect=True)
def test_from_a_picture_by_clicks_to_neighbours_and_on(page):
    page.locator("#pictures button").first.click()
    page.locator("#stage path").first.click(force=True)
    page.locator("#neighbours .card").first.wait_for()
    assert page.locator("#neighbours .card").count() == 20
    assert page.locator("#stage path.chosen").count() == 1
    first = page.url
    other = page.locator("#neighbours .card .soft").nth(2).text_content()
    page.locator("#neighbours .card").nth(2).click()
    expect(page.locator("#count")).to_contain_text(other)
    page.go_back()
    assert page.url == first
    # A link reproduces the view.
    page.goto("about:blank")
    page.goto(first)
    page.locator("#stage path.chosen").wait_for(state="attached")
    assert page.locator("#neighbours .card").count() == 20
    # Nothing is wider than the window.
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_filters_are_kept_in_the_link(page):
    page.goto(page.url + "#segment=train%2Fstripes-0%2F0")
    page.locator("#neighbours .card").first.wait_for()
    page.locator("[name=only]").select_option("<b>red</b>")
    page.locator("[name=own]").check()
    page.locator("[name=k]").fill("3")
    page.keyboard.press("Enter")
    expect(page.locator("#neighbours .card")).to_have_count(3)
    assert "only=%3Cb%3Ered" in page.url and "own=1" in page.url and "k=3" in page.url
    assert page.locator("b", has_text="red").count() == 0
    words = page.locator("#neighbours .card").first.text_content()
    assert "<b>red</b> (annotated)" in words


def test_by_keyboard_alone(page):
    page.locator("#pictures button").first.focus()
    page.keyboard.press("Enter")
    page.locator("#stage path").first.focus()
    page.keyboard.press(" ")
    page.locator("#neighbours .card").first.focus()
    before = page.url
    page.keyboard.press("Enter")
    expect(page).not_to_have_url(before)


def test_a_chosen_file_is_cut_and_asked_about(page, tmp_path):
    cv2.imwrite(str(tmp_path / "mine.png"), stripes(0).image[..., ::-1])
    page.locator("#file").set_input_files(tmp_path / "mine.png")
    page.locator("#stage path[aria-label*='blue']").first.click(force=True)
    page.locator("#neighbours .card").first.wait_for()
    assert "blue" in page.locator("#neighbours .card").first.text_content()
    assert page.locator("#caption").text_content() == "mine.png"


def test_a_mistake_is_told(chromium, site):
    page = chromium.new_page()
    page.goto(site + "/#segment=none")
    expect(page.locator("#problem")).to_contain_text("no segment of the index")
    page.close()


def test_another_sites_page_gets_nothing(chromium, site, tmp_path):
    Path(tmp_path / "evil.html").write_text(f"<img src='{site}/picture/0' onload='loaded = 1'>")
    page = chromium.new_page()
    page.goto(f"file://{tmp_path}/evil.html")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("typeof loaded") == "undefined"
    page.close()
