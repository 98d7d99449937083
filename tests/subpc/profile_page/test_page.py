"""The HTML report: in a browser, without network, with names that try to run."""

import re
import urllib.parse
from dataclasses import replace
from pathlib import Path

import pytest

from subpc.errors import ConfigError
from subpc.profile_page.page import render_page, write_page
from tests.subpc.profile_page.browser import needs_browser, opened
from tests.subpc.profile_page.report_input import HOSTILE, NAMES, in_integers, page_input


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_page(path, page_input())
    return path


def first_column(seen: object) -> list[str]:
    return seen.page.eval_on_selector_all(
        "#layers tbody td:first-child", "cells => cells.map(c => c.textContent)"
    )  # type: ignore[attr-defined, no-any-return]


@needs_browser
@pytest.mark.parametrize(
    ("width", "scheme"), [(1366, "light"), (390, "dark")], ids=["laptop", "phone"]
)
def test_everything_is_drawn_and_nothing_is_fetched(page: Path, width: int, scheme: str) -> None:
    with opened(page, width, scheme) as seen:
        drawn = seen.page.eval_on_selector_all(
            ".plot .main-svg", "all => all.map(svg => svg.closest('.plot').id)"
        )
        assert set(drawn) == {"latency", "roofline", "sparsity", "sizes", "peers", "map"}
        assert seen.page.locator("#latency .point").count() == len(NAMES)
        assert seen.page.locator("#roofline .scatterlayer .point").count() == len(NAMES)
        assert seen.messages == []
        assert [urllib.parse.urlsplit(url).scheme for url in seen.requests] == ["file"]
        assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@needs_browser
def test_the_table_sorts_by_the_column_that_is_clicked(page: Path) -> None:
    by_time = [NAMES[2], NAMES[3], NAMES[0], NAMES[1]]
    with opened(page) as seen:
        assert first_column(seen) == list(NAMES)
        seen.page.get_by_role("button", name="ms").click()
        assert first_column(seen) == by_time
        assert seen.page.locator("#layers th[aria-sort=descending] button").all_text_contents() == [
            "ms"
        ]
        seen.page.get_by_role("button", name="ms").click()
        assert first_column(seen) == by_time[::-1]
        seen.page.get_by_role("button", name="layer").press("Enter")
        assert first_column(seen)[-2:] == ["layer1.conv2", "stem"]
        seen.page.get_by_label("Show layers that contain").fill("conv2")
        assert seen.page.locator("#layers tbody tr:visible").count() == 1


@needs_browser
def test_names_are_text_and_never_run(page: Path) -> None:
    with opened(page) as seen:
        seen.page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
        assert seen.page.locator("h1").text_content() == HOSTILE
        assert seen.page.locator("img, iframe, object").count() == 0
        labels = seen.page.eval_on_selector_all(
            "#latency .ytick text", "all => all.map(t => t.textContent)"
        )
        assert HOSTILE in labels
        # Even if one got through, the page's policy runs no script without its nonce.
        seen.page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {textContent:"
            " 'window.ran = 1'}))"
        )
        assert seen.page.evaluate("window.ran") is None


@needs_browser
def test_the_block_map_shows_the_blocks_of_the_chosen_layer(page: Path) -> None:
    with opened(page) as seen:
        seen.page.get_by_label("Layer", exact=True).select_option(label=NAMES[2])
        assert (
            seen.page.locator("#map-facts").text_content()
            == "1x8 uniform: 4 x 8 blocks, 50.0 % kept"
        )
        assert seen.page.evaluate("document.getElementById('map').data[0].z") == [
            [(r + c + 1) % 2 for c in range(8)] for r in range(4)
        ]


def test_no_address_and_no_unescaped_name_in_the_page() -> None:
    text = render_page(page_input())
    own = text[: text.index("plotly.js")] + text[text.rindex('"use strict"') :]
    assert HOSTILE not in text
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", own)
    assert "default-src 'none'" in own


def test_what_is_not_known_is_left_out() -> None:
    text = render_page(page_input(bench=False, peak=False))
    assert 'id="roofline"' not in text
    assert 'id="peers"' not in text
    assert "peak not measured" in text


def test_layers_of_integers_are_shown_under_their_own_roof() -> None:
    given = in_integers(page_input())
    text = render_page(given)
    card = re.search(r"useful work</span><b>\d+ (\S+)</b><span>(.*?)</span>", text)
    assert card is not None
    assert card.group(1) == "GOP/s"
    assert card.group(2).endswith("of the measured peak in int8")
    assert "2 threads: 2000 GOP/s in int8" in text
    assert "useful GOP/s" in text
    rows = text[text.index('<table id="layers">') :]
    assert len(re.findall(r">int8</td>", rows)) == 3
    assert "float32: input: not quantized</td>" in rows
    assert "2000 GOP/s in int8" not in render_page(page_input())


def test_a_page_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old.html").write_text("old")
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with pytest.raises(ConfigError, match=r"pip install 'subpc\[report\]'"):
        write_page(tmp_path / "old.html", page_input())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.html", "old")]


def test_names_are_cut_and_have_no_control_characters() -> None:
    from plotly.offline import get_plotlyjs

    evil = "a\x1b[31m\u202e\udcff" + "x" * 5000
    given = page_input()
    layers = tuple(replace(layer, name=evil) for layer in given.metadata.layers)
    rows = tuple(replace(row, layer=evil) for row in given.profile.layers)
    changed = {
        "metadata": replace(given.metadata, model=evil, layers=layers),
        "profile": replace(given.profile, layers=rows),
    }
    text = render_page(replace(given, **changed)).replace(get_plotlyjs(), "")  # type: ignore[arg-type]
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "a\\x1b[31m\\u202e\\xff" in text
    assert "x" * 1000 not in text
