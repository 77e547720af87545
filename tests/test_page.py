"""The report in a real browser: Debian's chromium through Playwright; skipped where either is missing."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import longtail
from longtail import recipes
from longtail.compare import ComparisonTable, Outcome, runs
from longtail.counts import ClassCounts
from longtail.evaluation import evaluate
from longtail.paper.page import page_section
from longtail.paper.settings import cifar, measure
from longtail.report.page import explorer_page, report_page

BROWSER = os.environ.get("LONGTAIL_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install playwright"
)
pytestmark = pytest.mark.skipif(not BROWSER, reason="no chromium is installed: apt-get install chromium")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=BROWSER, args=ARGUMENTS, timeout=0)
        yield browser
        browser.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Open a page from disk; at the end no error, dialog or request may have been seen."""
    seen: list[str] = []
    contexts = []

    def opened(text: str, width: int = 1400, scheme: str = "light") -> Any:
        file = tmp_path / f"page{len(contexts)}.html"
        file.write_text(text, encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        context.set_default_timeout(0)  # no clock decides: a page that never gets there hangs the test
        page = context.new_page()
        page.on("console", lambda m: seen.append(f"console {m.type}: {m.text}"))
        page.on("pageerror", lambda error: seen.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (seen.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on(
            "request", lambda r: None if r.url == file.as_uri() else seen.append(f"request: {r.url[:99]}")
        )
        page.goto(file.as_uri())
        return page

    opened.seen = seen  # type: ignore[attr-defined]
    yield opened
    for context in contexts:
        context.close()
    assert seen == []


def _runs(
    size: int = 10, seeds: int = 3, names: list[str] | None = None, folder: Path | None = None
) -> ComparisonTable:
    """Made-up runs of two losses and three weightings, with calibration, confusions and histories."""
    rng = np.random.default_rng(7)
    counts = longtail.datasets.long_tail_counts(size, 500, 100)
    targets = np.repeat(np.arange(size), max(2, 200 // size))
    outcomes = []
    for loss in ("softmax", "focal"):
        for place, scheme in enumerate(("none", "inverse", "effective")):
            for seed in range(seeds):
                scores = rng.normal(size=(len(targets), size))
                scores[np.arange(len(targets)), targets] += np.linspace(3, 1 + 0.5 * place, size)[targets]
                recipe = recipes.digits(loss=loss, scheme=scheme, seed=seed)
                place_on_disk = Path("nowhere") if folder is None else folder / recipe.short_hash
                if folder is not None:
                    place_on_disk.mkdir()
                    lines = [
                        {"epoch": e, "loss": 1 / e, "test_error": 0.5 / e if e % 2 else None}
                        for e in (1, 2, 3)
                    ]
                    (place_on_disk / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
                    (place_on_disk / "environment.json").write_text(json.dumps({"class_names": names}))
                outcomes.append(Outcome(recipe, evaluate(scores, targets, counts), 1.0, None, place_on_disk))
    (made,) = runs.comparisons(outcomes)
    return made


def scroll_through(page: Any, charts: str = ".chart") -> None:
    """Bring charts into view one by one, and wait until each is drawn."""
    page.evaluate(
        """async (charts) => {
            for (const node of document.querySelectorAll(charts)) {
                node.scrollIntoView();
                while (!node.children.length) await new Promise((done) => setTimeout(done, 10));
            }
            scrollTo(0, 0);
        }""",
        charts,
    )


def until(page: Any, condition: str) -> None:
    """Wait for a condition; Playwright's own wait needs eval, which the page forbids."""
    while not page.evaluate(condition):
        page.wait_for_timeout(20)


# texts of charts, and elements of the page, that reach over an edge
CUT_OFF = """() => {
    const over = [];
    const wide = document.documentElement.clientWidth + 1;
    if (document.documentElement.scrollWidth > wide) over.push("the page scrolls sideways");
    for (const node of document.querySelectorAll("main *")) {
        if (node.closest(".scroll, .hidden, svg") || !node.getClientRects().length) continue;
        const box = node.getBoundingClientRect();
        if (box.right > wide || box.left < -1) over.push(`${node.tagName} ${node.className}`);
    }
    for (const text of document.querySelectorAll(".chart .main-svg text")) {
        const edge = text.closest(".chart").getBoundingClientRect(), box = text.getBoundingClientRect();
        const outside = box.right > edge.right + 1 || box.left < edge.left - 1;
        if (box.width && outside) over.push(`text ${text.textContent}`);
    }
    return over;
}"""


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1400, "light")])
def test_nothing_is_cut_off_and_every_chart_is_drawn(
    show: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    (tmp_path / "runs").mkdir()
    names = [f"a fairly long name of class {i}" for i in range(10)]
    made = _runs(names=names, folder=tmp_path / "runs")
    page = show(report_page([made], first=page_section(measure(cifar("fig9"), []))), width, scheme)
    scroll_through(page)
    assert page.evaluate(CUT_OFF) == []
    charts = page.locator(".chart").count()
    assert charts == 16 + 1  # with the paper's grid
    assert page.locator(".chart .main-svg").count() >= charts
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(13, 17, 23)")
    inked = page.evaluate("getComputedStyle(document.querySelector('.chart .xtitle')).fill")
    assert inked == ("rgb(27, 31, 36)" if scheme == "light" else "rgb(230, 237, 243)")


def test_a_cut_off_text_is_found(show: Any) -> None:
    page = show(explorer_page(ClassCounts(["a", "b"], [9, 3])), 400)
    page.evaluate(
        "document.querySelector('main').insertAdjacentHTML('beforeend', '<p style=\"width:900px\">wide</p>')"
    )
    assert "the page scrolls sideways" in page.evaluate(CUT_OFF)


def test_the_theme_follows_while_the_page_is_open(show: Any) -> None:
    page = show(explorer_page(ClassCounts(["a", "b"], [9, 3])), scheme="light")
    ink = "getComputedStyle(document.querySelector('.chart .xtitle')).fill"
    page.wait_for_selector(".chart .xtitle")
    before = page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    until(page, f"({ink}) !== '{before}'")


COUNTS = [
    [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50],
    [1_000_000_000, 1],
    [124, 3, 2, 0],
    [0.5, 7.25, 1e-3, 12],
]
VOLUMES = [1.0, 1.0000001, 1.5, 2.0, 10.0, 223.9, 1e4, 1e8, 1e15, 1e300, float("inf")]


def test_the_explorer_computes_what_python_computes(show: Any) -> None:
    page = show(explorer_page(ClassCounts(["a", "b"], [9, 3])))
    for counts in COUNTS:
        for volume in VOLUMES:
            given = [counts, str(volume).replace("inf", "Infinity")]
            call = (
                "([c, v]) => c.map((n) => longtail.effectiveNumber(n, Number(v.replace('inf', 'Infinity'))))"
            )
            theirs = page.evaluate(call, given)
            np.testing.assert_allclose(
                theirs, longtail.effective_number(counts, volume=volume), rtol=1e-9, atol=0
            )
            for normalize in ("classes", "samples", None):
                call = "([c, v, n]) => longtail.classWeights(c, 'effective', Number(v), n)"
                theirs = page.evaluate(call, [*given, normalize or "none"])
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # some of these volumes do nothing, and say so
                    ours = longtail.class_weights(counts, volume=volume, normalize=normalize)
                np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=0)
        for scheme in ("none", "inverse", "inverse_sqrt"):
            theirs = page.evaluate("([c, s]) => longtail.classWeights(c, s, 1, 'classes')", [counts, scheme])
            np.testing.assert_allclose(theirs, longtail.class_weights(counts, scheme), rtol=1e-9)


def test_the_slider_moves_charts_table_and_code(show: Any) -> None:
    counts = {"cat": 5000, "dog": 500, "lynx": 50}
    page = show(explorer_page(ClassCounts(list(counts), list(counts.values()))))
    form, weights = page.locator(".explorer"), "document.querySelector('[data-chart=weights]').data[3].y"
    page.wait_for_selector("[data-chart=weights] .main-svg")
    before = page.evaluate(weights)
    np.testing.assert_allclose(before, longtail.class_weights(list(counts.values()), volume=1000), rtol=1e-9)
    page.locator(".explorer input[type=range]").focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    until(page, f"JSON.stringify({weights}) !== '{json.dumps(before).replace(' ', '')}'")
    volume = float(form.get_attribute("data-volume"))
    assert volume > 1000
    ours = longtail.class_weights(list(counts.values()), volume=volume)
    until(page, f"Math.abs({weights}[2] / {float(ours[2])!r} - 1) < 1e-9")  # the last of the steps is drawn
    np.testing.assert_allclose(page.evaluate(weights), ours, rtol=1e-9)
    assert f"volume={volume:g}" in page.locator(".explorer .line").text_content()
    said = page.locator(".explorer input[type=range]").get_attribute("aria-valuetext")
    assert said == page.locator(".explorer output").text_content()
    row = page.locator(".classes tbody tr").nth(2).locator("td").all_text_contents()
    assert row[0] == "lynx"
    assert float(row[4]) == pytest.approx(ours[2], rel=1e-3)

    # each choice that does nothing says so, by button, by number and at the end of the slider
    warning = page.locator(".explorer .warn")
    assert warning.is_hidden()
    page.get_by_role("button", name="β = 0", exact=True).click()
    assert "no re-weighting" in warning.text_content()
    page.locator(".explorer input[type=number]").fill("5")
    assert "does nothing" in warning.text_content()
    page.get_by_role("button", name="1/n (β = 1)").click()
    assert "equals 1/n" in warning.text_content()
    until(page, f"Math.abs({weights}[2] / {weights}[0] - 100) < 1e-9")
    page.locator(".explorer select").select_option("samples")
    until(page, f"Math.abs({weights}[0] - 5550 / 15000) < 1e-9")


def test_the_explorer_starts_where_the_runs_were(show: Any) -> None:
    page = show(report_page([_runs()]))
    assert page.locator(".explorer output").text_content() == "N = 100, β = 0.99"


def test_tables_sort_by_keyboard_with_n_a_last(show: Any) -> None:
    page = show(report_page([_runs()]))
    table = page.locator("table.sortable").first
    difference = table.locator("th").nth(6)
    values = "t => [...t.tBodies[0].rows].map((r) => r.cells[6].dataset.v ?? null)"
    difference.locator("button").focus()
    for direction in ("ascending", "descending"):
        page.keyboard.press("Enter")
        assert difference.get_attribute("aria-sort") == direction
        column = table.evaluate(values)
        numbers = [float(v) for v in column if v is not None]
        assert numbers == sorted(numbers, reverse=direction == "descending")
        assert column[len(numbers) :] == [None, None]  # the two baselines
    table.locator("th").nth(0).locator("button").click()
    assert difference.get_attribute("aria-sort") == "none"
    classes = page.locator(".classes table")
    classes.locator("th").nth(1).locator("button").click()
    samples = [int(text) for text in classes.locator("tbody td:nth-child(2)").all_text_contents()]
    assert samples == sorted(samples)


def test_methods_and_matrices_can_be_chosen(show: Any) -> None:
    made = _runs()
    page = show(report_page([made]))
    scroll_through(page)  # all: what is drawn later moves what is clicked
    count = "document.querySelector('[data-chart=groups]').data.length"
    assert page.evaluate(count) == 2  # the best and its baseline
    page.locator(".shown input:not(:checked)").first.check()
    assert page.evaluate(count) == 3
    page.locator("select.matrix").first.select_option("0")
    text = page.evaluate("document.querySelector('[data-chart=matrix-best]').data[0].text[0][0]")
    total = sum(
        o.evaluation.confusion[0][0] for o in made.rows[0].outcomes if o.evaluation and o.evaluation.confusion
    )
    assert text == f"true 0, taken for 0: {total}"


def test_html_in_class_names_is_shown_as_text(show: Any, tmp_path: Path) -> None:
    names = [
        "<script>alert(1)</script>",
        "</script><script>alert(2)</script>",
        "<b>bold</b>",
        "%{x} & &amp; $x$",
    ]
    (tmp_path / "runs").mkdir()
    for text in (
        explorer_page(ClassCounts(names, [9, 5, 3, 1]), title=names[0]),
        report_page([_runs(4, names=names, folder=tmp_path / "runs")], title=names[1]),
    ):
        page = show(text)
        scroll_through(page)
        assert page.locator(".classes tbody td:first-child").all_text_contents() == names
        assert page.locator("script").count() == 3
        assert page.locator("main b").count() == 0
        ticks = page.locator("[data-chart=counts] .xtick text").all_text_contents()
        assert ticks[0] == f"{names[0][:7]}…{names[0][-6:]}"
        page.locator("[data-chart=counts]").scroll_into_view_if_needed()
        place = page.locator("[data-chart=counts] .nsewdrag").bounding_box()
        page.mouse.move(place["x"] + place["width"] / 8, place["y"] + 0.9 * place["height"])
        page.wait_for_selector("[data-chart=counts] .hovertext")
        assert names[0] in page.locator("[data-chart=counts] .hovertext").text_content()


def test_ten_thousand_classes_draw_fifty_rows_and_no_bars(show: Any) -> None:
    size = 10_000
    counts = longtail.datasets.long_tail_counts(size, 5000, 500)
    targets = np.arange(size)
    outcomes = []
    for scheme in ("none", "effective"):
        for seed in (0, 1):
            predicted = np.where(
                np.random.default_rng(seed).random(size) < 0.4, (targets + 1) % size, targets
            )
            recipe = recipes.digits(scheme=scheme, seed=seed)
            outcomes.append(Outcome(recipe, evaluate(predicted, targets, counts), 1.0, None, Path("nowhere")))
    page = show(report_page(runs.comparisons(outcomes)))
    scroll_through(page)
    assert page.locator(".classes tbody tr").count() == 50
    assert page.evaluate("document.querySelectorAll('*').length") < 5000
    page.get_by_role("button", name="next ›").click()
    assert "page 2 of 200" in page.locator(".pager").text_content()
    page.locator("input[type=search]").fill("9999")
    assert page.locator(".classes tbody td:first-child").all_text_contents() == ["9999"]
    weights = "document.querySelector('[data-chart=weights]').data[3].y"
    first = float(longtail.class_weights(counts, volume=20.0)[0])
    page.locator(".explorer input[type=number]").fill("20")
    until(page, f"{weights}.length < 1500 && Math.abs({weights}[0] - {first!r}) < 1e-9")


def test_printing_draws_everything_in_light(show: Any) -> None:
    page = show(report_page([_runs()]), scheme="dark")
    page.evaluate("addEventListener('afterprint', () => { window.after = true })")
    colour = "getComputedStyle(document.documentElement).backgroundColor"
    page.evaluate(f"addEventListener('beforeprint', () => {{ window.light = {colour} }})")
    assert len(page.pdf(format="A4", print_background=True)) > 50_000
    assert page.evaluate("window.light") == "rgb(255, 255, 255)"
    charts = page.locator(".chart").count()
    assert (
        page.evaluate("[...document.querySelectorAll('.chart')].filter((n) => n.children.length).length")
        == charts
    )


def test_the_policy_stops_requests_and_injected_scripts(show: Any) -> None:
    page = show(explorer_page(ClassCounts(["a", "b"], [9, 3])))
    stopped = page.evaluate(
        """() => new Promise((done) => {
            const seen = [];
            addEventListener("securitypolicyviolation", (e) => {
                if (seen.push(e.effectiveDirective) === 3) done(seen.sort());
            });
            fetch("https://example.com/").catch(() => {});
            new Image().src = "https://example.com/x.png";
            const script = document.createElement("script");
            script.textContent = "alert(1)";
            document.body.append(script);
        })"""
    )
    assert stopped == ["connect-src", "img-src", "script-src-elem"]
    # the attempts are seen, and stopped: no answer ever came
    assert all("Content Security Policy" in text or text.startswith("request: https") for text in show.seen)
    show.seen.clear()
