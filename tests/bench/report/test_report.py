"""`fastppo report`: the page, its charts, the command; odd names and numbers."""

import json
import re
import struct
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from fastppo import arguments
from fastppo.bench.report import charts, charts_learn
from fastppo.bench.report import command as report
from fastppo.bench.report import html as report_html
from fastppo.bench.report.args import Args
from fastppo.bench.report.data import ResultFile, round_ratios, run_of
from fastppo.bench.results import result
from fastppo.errors import MachineError, UserError
from fastppo.text import printable

Record = dict[str, Any]
Make = Callable[..., Record]
HOSTILE = "<script>alert(1)</script>&a|b$c`d"
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """What a browser would see: elements, ids, references, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.open += [] if tag in VOID else [tag]
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
                self.references.append(value or "")
            self.references += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.open and self.open[-1] == "style":
            self.references += re.findall(r"url\(|@import", data)


@pytest.fixture(scope="module")
def html(every_kind: list[Record]) -> str:
    """The page of all of them."""
    return report.html(every_kind)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    """Writes records and reports them through the command's own options."""

    def command(records: list[Record], *options: str) -> int:
        paths = [tmp_path / f"{i}.json" for i in range(len(records))]
        for path, record in zip(paths, records, strict=True):
            path.write_text(json.dumps(record))
        words = [*map(str, paths), *options]
        return report.run(arguments.read(Args, words, "fastppo report"))

    return command


def test_the_page_is_whole_and_fetches_nothing(html: str) -> None:
    page = Page(html)

    assert page.open == []
    assert page.ids
    assert [name for name, times in Counter(page.ids).items() if times > 1] == []
    assert page.references
    for reference in page.references:
        assert reference.startswith("#"), reference
        assert reference[1:] in page.ids
    assert page.tags["script"] == page.tags["link"] == page.tags["img"] == page.tags["b"] == 0


def test_the_page_tells_machine_versions_date_command_and_failures(html: str) -> None:
    text = " ".join(" ".join(Page(html).text).split())

    for said in (
        "AMD EPYC, 2 cores, no GPU, 23.5 GB, Linux-6.18",
        "python 3.11.7, fastppo 0.1.0, torch 2.13.0",
        "2026-11-23T12:00:00+00:00",
        "fastppo bench train Pong-v5",
        "revision 69f605869f60 with local changes",
        "not measured: sb3: crashed: exit code -9",
        "does other work: parameters 1686180 and 1700000 <b>",
        "learning not verified: fastppo, sb3",
        "no steady state was reached",
        "8 in 1",
        "WRONG: adam P=33: differs by 0.1",
        HOSTILE,
    ):
        assert said in text, said
    assert "/some/where" not in text
    assert "\x1b" not in text


def test_hostile_names_stay_text(html: str) -> None:
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;a|b$c`d" in html


def test_a_page_is_the_same_whenever_it_is_made(every_kind: list[Record]) -> None:
    assert report.html(every_kind[1:2]) == report.html(every_kind[1:2])


def test_charts_hold_the_data(every_kind: list[Record]) -> None:
    drawn = {
        chart.name: chart for chart in report_html.charts([ResultFile(one) for one in every_kind])
    }

    def gids(name: str, start: str) -> int:
        artists = [a for axes in drawn[name].figure.axes for a in axes.get_children()]
        return sum(str(a.get_gid() or "").startswith(start) for a in artists)

    assert gids("train-pong-v5-8x128-rates", "data-bar-") == 9
    assert gids("train-pong-v5-8x128-phases", "data-phase-env-") == 8  # sb3 told no phases
    assert gids("train-pong-v5-8x128-pairs", "data-pairs-") == 8  # all but the base
    assert gids("learn-cartpole-v1-8x128-steps", "data-seed-") == 10
    assert gids("learn-cartpole-v1-8x128-time", "data-mean-") == 2
    assert gids("learn-cartpole-v1-8x128-reached", "data-reached-") == 2
    assert gids("learn-profile", "data-profile-") == 1
    assert gids("kernel-gae-t128", "data-kernel-") == 3
    assert {"kernel-categorical-a6", "kernel-categorical-a18"} < set(drawn)
    assert gids("env-pong-v5-grid", "data-setting-") == 12
    rates = drawn["train-pong-v5-8x128-rates"].figure.axes[0]
    widths = [bar.get_width() for bar in rates.patches if isinstance(bar, Rectangle)]
    told = [e["train"]["env_steps_per_s"]["value"] for e in every_kind[0]["results"][:9]]
    assert widths == pytest.approx(told)
    assert rates.get_xlabel() == "environment steps per second"


def test_every_chart_has_its_numbers_in_words_and_a_caption(
    every_kind: list[Record], html: str
) -> None:
    page, drawn = Page(html), report_html.charts([ResultFile(printable(one)) for one in every_kind])

    assert page.tags["svg"] == page.tags["figure"] == page.tags["figcaption"] == len(drawn)
    assert html.count('role="img"') == len(drawn)
    assert all(chart.caption.endswith(".") for chart in drawn)
    assert "fastppo 7,877 [7,694, 8,126]" in html
    assert page.ids.count("train-pong-v5-8x128-rates-data-bar-8") == 1


def test_charts_follow_the_mode_of_the_page(train_record: Make) -> None:
    (chart, *_) = report_html.charts([ResultFile(train_record())])

    inline, alone = chart.inline(), chart.svg()

    assert "var(--series-0)" in inline
    assert charts.INK in alone
    assert charts.INK not in inline
    assert "<metadata>" not in inline
    for light, dark in charts.SERIES:
        assert light != dark


def test_an_implementation_has_one_colour(train_record: Make) -> None:
    palette = charts.Palette(("reference", "zed", "fastppo", "abc"))

    looks = {(palette.colour(name), palette.marker(name)) for name in palette.names}
    assert len(looks) == 4
    assert palette.colour("fastppo") == charts.Palette(("fastppo",)).colour("fastppo")


def test_the_mean_curve_of_equal_seeds_is_the_seed() -> None:
    x = np.linspace(0.0, 10.0, 11)
    grid, mean, low, high = charts_learn.mean_curve([(x, 2 * x)] * 4)

    assert mean == pytest.approx(2 * grid)
    assert low == pytest.approx(high)


def test_rounds_are_paired_by_their_number(train_record: Make) -> None:
    group = ResultFile(train_record(names=("fastppo", "reference"))).groups[0]
    ours, base = group.entries
    base.raw["launches"][0]["rounds"] = [7, 6, 5, 4, 3, 2, 1, 0]
    mine, theirs = (one.raw["launches"][0]["samples"] for one in group.entries)

    found = round_ratios(ours, base)

    assert found[0] == (3.0, mine[0] / theirs[7])
    assert len(found) == 8


def test_pictures_are_png_and_svg_of_their_own(train_record: Make, tmp_path: Path) -> None:
    record = train_record(names=("fastppo", "reference"))
    record["results"] = record["results"][:2]

    written = list(report.pictures([record], tmp_path / "new"))

    names = {f"train-pong-v5-8x128-{what}" for what in ("rates", "phases", "pairs")}
    assert {path.stem for path in written} == names
    assert {path.name for path in (tmp_path / "new").iterdir()} == {p.name for p in written}
    for path in written:
        if path.suffix == ".svg":
            ElementTree.parse(path)
            assert "Pong-v5, 8x128: " in path.read_text()
        else:
            width, height = struct.unpack(">II", path.read_bytes()[16:24])
            assert width > 600
            assert height > 200


def test_the_command_writes_all_that_was_asked_for(
    run: Callable[..., int],
    train_record: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = train_record(names=("fastppo", "reference"))
    outputs = [(f"--{name}", str(tmp_path / f"r.{name}")) for name in ("html", "md", "junit")]

    assert run([record], *(word for pair in outputs for word in pair)) == 0

    assert capsys.readouterr().out.splitlines() == [f"{o[2:]}: {path}" for o, path in outputs]
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert run([record]) == 0
    assert "env steps/s" in capsys.readouterr().out


def test_mistakes_are_one_line(run: Callable[..., int], train_record: Make, tmp_path: Path) -> None:
    record = train_record(names=("fastppo", "reference"))
    (tmp_path / "file").touch()
    for options, message in (
        ([str(tmp_path / "0.json")], "0.json is named twice"),
        ([str(tmp_path / "file")], "file: is no JSON"),
    ):
        with pytest.raises(UserError, match=message) as refusal:
            run([record], *options)
        assert "\n" not in str(refusal.value)


def test_a_full_disk_is_one_line_and_leaves_nothing(
    train_record: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)

    with pytest.raises(MachineError, match="no space left on device"):
        result.write_text(tmp_path / "x.html", "text", "--html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("factor", "scale"), [(1.0, "linear"), (10.0, "log")])
def test_times_that_differ_tenfold_are_drawn_over_a_logarithm(
    factor: float, scale: str, learn_record: Record
) -> None:
    record = deepcopy(learn_record)
    for curve in record["results"][1]["learn"]["curves"]:
        curve["wall_s"] = [factor * at for at in curve["wall_s"]]
        curve["total_s"] *= factor
        if curve["seconds_to_threshold"] is not None:
            curve["seconds_to_threshold"] *= factor
    [group] = run_of(record).groups
    palette = charts.Palette(("fastppo", "sb3"))

    for chart in (
        charts_learn.curves(group, palette, "wall_s"),
        charts_learn.reached(group, palette),
    ):
        assert chart is not None
        assert chart.figure.axes[0].get_xscale() == scale
        assert chart.svg()
    over_steps = charts_learn.curves(group, palette, "env_steps")
    assert over_steps is not None
    assert over_steps.figure.axes[0].get_xscale() == "linear"
