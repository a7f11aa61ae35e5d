"""The console in a real browser: what a person sees, with the policy enforced and every error of the page counted."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from blockbuster import blockbuster
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.dashboards.console.conftest import PASSWORD, Served
from tests.dashboards.console.world import rows
from tests.support.services import wait_until

ARGUMENTS = (
    *("no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update"),
    *("disable-sync", "no-first-run", "disable-quic"),
)
PAGES = (
    "/fleet",
    "/machines/cooler-0001",
    "/machines/cooler-0001?range=24h",
    "/gateways",
    "/dead-letters",
    "/users",
    "/account",
    "/health",
)

CHECKS = (Path(__file__).parent / "page_checks.js").read_text(encoding="utf-8")

pytestmark = pytest.mark.service


@pytest.fixture(autouse=True)
def _playwright_has_a_loop_of_its_own() -> Iterator[None]:
    """Its synchronous interface runs the test on an event loop, where the test may block; the console's own loop is in another thread."""
    blockbuster._skip.value = True  # of this thread only
    yield
    blockbuster._skip.value = False


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    executable: Path = request.getfixturevalue("require")("chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=[f"--{one}" for one in ARGUMENTS])
        expect.set_options(timeout=15_000)
        yield started
        started.close()


@pytest.fixture
def context(browser: Browser, served: Served) -> Iterator[BrowserContext]:
    one = browser.new_context(base_url=served.url, reduced_motion="reduce", locale="en-GB", timezone_id="America/New_York")
    one.set_default_timeout(15_000)
    yield one
    one.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A signed-in administrator; at the end the page must have had no error and asked no other host."""
    one = context.new_page()
    problems: list[str] = []
    # Chromium advises whoever reads a canvas back as these tests do; everything else that it says is a problem.
    one.on("console", lambda said: problems.append(said.text) if said.type != "log" and "getImageData" not in said.text else None)
    one.on("pageerror", lambda error: problems.append(str(error)))
    one.on("request", lambda asked: None if asked.url.startswith("http://127.0.0.1") else problems.append(asked.url))
    enter(one)
    yield one
    assert problems == []


def enter(page: Page, name: str = "ada") -> None:
    page.goto("/fleet")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/fleet")


def check(page: Page, call: str) -> list[Any]:
    """Run a function of ``page_checks.js`` in the page."""
    found: list[Any] = page.evaluate(f"() => {{ {CHECKS}\nreturn {call}; }}")
    return found


def test_a_person_signs_in_looks_and_signs_out(page: Page) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text("Fleet")
    page.get_by_role("link", name="cooler-0001").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("cooler-0001")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    page.goto("/fleet")
    assert "/sign-in" in page.url


def test_a_live_value_changes_on_the_page_without_a_reload(page: Page, served: Served) -> None:
    page.goto("/machines/cooler-0001")
    reading = page.locator("section.ice").first.locator(".coolant .reading")
    before = reading.inner_text()
    page.evaluate("document.body.dataset.same = 'yes'")

    served.world.clock.advance(5000)
    served.world.live("cooler-0001", "gw-uferpark-1", {"coolant_temp_1": -7770})

    expect(reading).to_contain_text("−7.8")
    assert "−7.8" not in before
    assert page.evaluate("document.body.dataset.same") == "yes"


def test_the_charts_are_drawn_and_not_blank(page: Page) -> None:
    page.goto("/machines/cooler-0001?range=1h")
    page.wait_for_selector("#charts[data-drawn]")

    coloured = check(page, "inked(0, 1)")

    assert len(coloured) == 11
    assert min(coloured) > 100


def test_a_gap_in_the_data_is_a_gap_in_the_picture(page: Page) -> None:
    page.goto("/machines/cooler-0001?range=15m")
    page.wait_for_selector("#charts[data-drawn]")

    before, gap, after = (check(page, f"inked({left}, {left} + 0.02)")[-1] for left in (0.25, 0.49, 0.8))

    # The seeded machine said nothing from ten to seven minutes ago.
    assert before > 0
    assert gap == 0
    assert after > 0


def test_the_cursor_tells_the_time_there_and_in_utc(page: Page) -> None:
    page.goto("/machines/cooler-0001?range=1h")
    page.wait_for_selector("#charts[data-drawn]")
    page.locator("#chart-temperature-1 .u-over").hover()

    told = re.compile(r"1 Jan 1[23]:\d\d:\d\d Europe/Berlin = 1[12]:\d\d:\d\d UTC")
    expect(page.locator("[data-chart-note]")).to_have_text(told)


def test_a_forged_request_changes_nothing(context: BrowserContext) -> None:
    page = context.new_page()
    enter(page)

    answer = page.evaluate(
        """async () => (await fetch("/users", {method: "POST", body: new URLSearchParams({name: "mallory", role: "admin"})})).status"""
    )

    assert answer == 403
    page.goto("/users")
    expect(page.locator(".users")).to_contain_text("ada")
    assert "mallory" not in page.locator(".users").inner_text()


def test_the_policy_stops_an_inline_script(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/sign-in")

    page.evaluate("const one = document.createElement('script'); one.textContent = 'window.ran = 1'; document.body.append(one)")

    assert page.evaluate("window.ran") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_a_phone(page: Page, scheme: Literal["light", "dark"]) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme=scheme)
    for path in PAGES:
        page.goto(path)

        assert check(page, "wider()") == [], path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(page: Page, scheme: Literal["light", "dark"]) -> None:
    """WCAG 2.2 AA: 4.5 : 1 for text, 3 : 1 for large text, on every page, of every visible text node."""
    page.emulate_media(color_scheme=scheme)
    for path in PAGES:
        page.goto(path)

        assert check(page, "contrast()") == [], path


def test_pages_can_be_read_by_a_machine(page: Page) -> None:
    """What axe would look for first: language, title, landmarks, one h1, names of controls and pictures, unique ids, table headings."""
    for path in PAGES:
        page.goto(path)

        assert check(page, "accessible()") == [], path


def test_the_keyboard_reaches_everything_in_order(page: Page) -> None:
    page.goto("/fleet")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "search"


def test_searching_changes_the_table_and_the_address(page: Page) -> None:
    page.get_by_label("Search machine, site or gateway").fill("lakeside")

    expect(page.locator("#fleet tbody")).to_have_count(1)
    page.wait_for_url("**search=lakeside**")


def test_the_colours_can_be_chosen_and_are_kept(page: Page) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Colours").click()
    dark = page.evaluate(ground)
    page.reload()

    assert light != dark
    assert page.evaluate(ground) == dark


def test_a_site_named_like_a_script_prints_and_does_not_run(page: Page) -> None:
    said: list[str] = []
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.goto("/fleet")

    expect(page.locator("body")).to_contain_text("<script>alert('x')</script>")
    assert said == []


def test_the_page_says_when_the_server_is_gone(context: BrowserContext, served: Served) -> None:
    page = context.new_page()
    enter(page)
    expect(page.locator("[data-lost]")).to_be_hidden()

    context.set_offline(True)

    expect(page.locator("[data-lost]")).to_be_visible()
    context.set_offline(False)
    expect(page.locator("[data-lost]")).to_be_hidden()


def test_a_change_of_standing_is_spoken_once(page: Page, served: Served) -> None:
    spoken = page.locator("[data-spoken]")
    expect(spoken).to_have_text("2 of 4 machines need attention")
    assert spoken.get_attribute("aria-live") == "polite"
    page.evaluate(
        """() => {
          window.told = window.swaps = 0;
          new MutationObserver(() => { window.told += 1; }).observe(document.querySelector("[data-spoken]"), { childList: true });
          document.body.addEventListener("htmx:afterSettle", () => { window.swaps += 1; });
        }"""
    )

    wait_until(lambda: page.evaluate("window.swaps"), 15, "the list refreshed itself")
    assert page.evaluate("window.told") == 0  # the same words again would be read out again
    start = served.world.clock.wall - 1000
    served.world.apply(served.world.blocks("cooler-0004", "gw-uferpark-1", rows(start, {"tank_level": [60.0]})))

    expect(spoken).to_have_text("1 of 4 machines need attention")
    assert page.evaluate("window.told") == 1


def test_without_scripts_the_pages_still_tell_everything(browser: Browser, served: Served) -> None:
    one = browser.new_context(base_url=served.url, java_script_enabled=False)
    page = one.new_page()
    enter(page)

    assert page.locator("tbody").count() == 4
    page.get_by_role("link", name="cooler-0002").click()
    expect(page.locator("section.ice").first).to_contain_text("Coolant")
    one.close()
