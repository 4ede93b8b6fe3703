"""The site shows what the pages hold: addresses, escaping, empty states, certificates, sizes, equal bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

from microtome.atlas import widgets as pages
from microtome.atlas.pictures import sprites
from microtome.atlas.pictures.sprites import SpriteWriter, gridded
from microtome.atlas.site import render, slugs
from microtome.atlas.store import Store
from microtome.atlas.widgets import to_class, to_image, to_layer, to_unit
from microtome.errors import StoreError

SPRITE = pages.Sprite("sprites/a b.png", (28, 28), 8, 16, "diverging", (-2.0, 2.0), "activation", own="sprites/own.png")
HOSTILE = '<script>alert("x")</script>'
MADE = pages.Made(
    "grad-cam", {"layer": "conv2"}, "microtome explain 7.png", seed=5, seconds=1.5, paper="Selvaraju 2020"
)


def picture(index: int = 0, alt: str = "unit 0", link: pages.Link | None = None) -> pages.Picture:
    return pages.Picture(SPRITE, index, alt, link)


def atlas(many: int = 3, **changes) -> pages.Atlas:
    cards = tuple(
        pages.UnitCard(k, picture(k % 16, link=to_unit("/relu", k)), "line", 0.5, 0.1 * k, 0.2, 0, (1.0, -0.5))
        for k in range(many)
    )
    made = pages.Atlas(
        title="net",
        command="microtome atlas --model m:f",
        classes=(HOSTILE, "cat"),
        overview=pages.OverviewPage(
            (pages.Number("accuracy", 99.1, "%"),),
            (
                pages.Block("conv", "Conv2d", (4, 8, 8), ("input",), 4, 100),
                pages.Block("/relu", "relu", (4, 8, 8), ("conv",), 4),
            ),
        ),
        layers=(pages.LayerPage("/relu", (), cards), pages.LayerPage("relu", (), ())),
        units=(pages.UnitPage("/relu", k) for k in range(many)),
        images=tuple(pages.ImagePage(name, f"image {name}", picture(alt=name), 0, 1) for name in ("0001", "a/b#c")),
        class_pages=(pages.ClassPage(0),),
    )
    return dataclasses.replace(made, **changes)


def section(*contents: pages.Widget | pages.Absent | None, name: str = "tuning curves") -> tuple[pages.Section, ...]:
    return (pages.Section("A title", tuple(pages.Part(content, name, "They show it.") for content in contents)),)


def written(tmp_path: Path, made: pages.Atlas) -> dict[str, str]:
    render(made, tmp_path)
    return {str(p.relative_to(tmp_path)): p.read_text() for p in sorted(tmp_path.rglob("*")) if p.is_file()}


class Links(HTMLParser):
    """Every address that a page names."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.found += [value for key, value in attrs if key in ("href", "src") and value]


def test_every_link_between_pages_resolves(tmp_path):
    files = written(tmp_path, atlas())
    seen = 0
    for name, content in files.items():
        if not name.endswith(".html"):
            continue
        reader = Links()
        reader.feed(content)
        for address in reader.found:
            if address.startswith(("#", "data:")):
                continue
            assert (tmp_path / name).parent.joinpath(unquote(address)).resolve().is_file(), (name, address)
            seen += 1
    assert seen > 40


def test_the_same_atlas_gives_the_same_bytes(tmp_path):
    first = written(tmp_path / "a", atlas())
    assert first == written(tmp_path / "b", atlas())
    assert len(first) == 1 + 2 + 3 + 2 + 1 + 7  # overview, layers, units, images, class, assets


def test_names_that_meet_get_pages_of_their_own():
    names = ["/relu", "relu", "RELU", "a.0", "a_0", "é", "..", "é/"]
    expected = ["relu", "relu-2", "RELU-3", "a.0", "a_0", "page", "page-2", "page-3"]
    assert list(slugs(names).items()) == list(zip(names, expected, strict=True))


def test_links_lead_only_to_pages_that_exist(tmp_path):
    rows = tuple(
        pages.Amount(f"row {at}", 1.0, link)
        for at, link in enumerate(
            (to_unit("/relu", 1), to_unit("/relu", 99), to_layer("gone"), to_image("0001"), to_class(0), to_class(1))
        )
    )
    unit = pages.UnitPage("/relu", 0, sections=section(pages.Amounts(rows, "weight", "Look.")))
    content = written(tmp_path, atlas(2, units=iter([unit])))["units/relu/0.html"]
    linked = {at for at in range(6) if f">row {at}</a>" in content}
    assert linked == {0, 3, 4}
    assert 'href="../../units/relu/1.html">row 0' in content


def test_what_users_name_is_escaped(tmp_path):
    made = atlas(title=HOSTILE, command=HOSTILE)
    made = dataclasses.replace(made, images=(pages.ImagePage("0", HOSTILE, picture(alt=HOSTILE), 0, 0),))
    files = written(tmp_path, made)
    for name, content in files.items():
        if name.endswith(".html"):
            assert HOSTILE not in content, name


def test_an_empty_state_names_what_is_missing_and_the_command(tmp_path):
    missing = pages.Section("A title", (pages.Part(None, "superstimuli", "They show it."), pages.Part(None)))
    unit = pages.UnitPage("/relu", 0, sections=(*section(None), missing))
    made = atlas(hints=(("tuning curves", "microtome atlas --budget full"),), units=iter([unit]))
    content = written(tmp_path, made)["units/relu/0.html"]
    found = re.findall(r'<p class="empty">Not computed: ([^.]+)\.[^<]*<code class="command">([^<]+)</code>', content)
    commands = dict(found)
    assert commands["tuning curves"] == "microtome atlas --budget full"
    assert commands["superstimuli"] == "microtome atlas --model m:f"
    assert len(found) == 2  # a part without a name is left out
    assert "<h2>A title</h2>" not in content  # a section that has nothing to show is left out


def test_what_is_missing_is_said_once_at_the_end(tmp_path):
    gap = pages.Absent("No weights lead here.")
    wiring = pages.Wiring("/relu:0", gap, None)
    parts = (pages.Part(None, "tuning curves"), pages.Part(gap), pages.Part(wiring), pages.Part(pages.Facts(())))
    unit = pages.UnitPage("/relu", 0, sections=(pages.Section("A title", parts),))
    made = atlas(hints=(("*", "microtome atlas --budget full"),), larger="about 40 minutes", units=iter([unit]))
    content = written(tmp_path, made)["units/relu/0.html"]
    assert content.count("No weights lead here.") == 1
    assert content.count("microtome atlas --budget full") == 1
    assert (
        "Not computed: tuning curves, the strongest outputs. This command adds them, in about 40\u00a0minutes"
        in content
    )
    assert content.index("<h2>A title</h2>") < content.index("Not computed")


def test_a_patch_opens_the_whole_image_with_its_place(tmp_path):
    whole = pages.Picture(SPRITE, 3, "image 0001, a cat", to_image("0001"))
    patch = pages.Patch(picture(5, "patch"), 1.5, "0001, a cat", (2, 2), None, whole, (0.25, 0.5, 0.125, 0.1))
    unit = pages.UnitPage("/relu", 0, sections=section(pages.Examples((patch,), "Look.")))
    content = written(tmp_path, atlas(units=iter([unit])))["units/relu/0.html"]
    assert 'data-cell="--x:3;--y:0"' in content
    assert 'data-box="left:25.00%;top:50.00%;width:12.50%;height:10.00%"' in content
    assert 'data-page="../../images/0001.html"' in content
    assert 'data-about="image 0001, a cat: response 1.50 at the marked position"' in content


def test_a_part_that_cannot_be_says_why(tmp_path):
    unit = pages.UnitPage("/relu", 0, sections=section(pages.Absent("No height and width.")))
    content = written(tmp_path, atlas(units=iter([unit])))["units/relu/0.html"]
    assert "No height and width." in content
    assert "Not computed" not in content


def test_a_certificate_outside_its_tolerance_is_marked(tmp_path):
    good = pages.Number("conservation", 1.0, tolerance="within 1\u00a0% of 1")
    bad = pages.Number("completeness gap", 0.31, tolerance="below 0.01", ok=False)
    content = written(tmp_path, atlas(units=iter([pages.UnitPage("/relu", 0, facts=(good, bad))])))["units/relu/0.html"]
    assert content.count('class="bad"') == 1
    assert "outside: below 0.01" in content
    assert "within tolerance: within 1\u00a0% of 1" in content


def test_how_a_figure_is_made_can_be_opened(tmp_path):
    page = pages.ClassPage(0, sections=section(pages.Gallery((picture(),), "Look at the strokes.", MADE)))
    content = written(tmp_path, atlas(class_pages=(page,)))["classes/0.html"]
    for text in (
        "grad-cam",
        "layer = conv2",
        "microtome explain 7.png",
        "<dd>5</dd>",
        "1.50\u00a0s",
        "Selvaraju 2020",
        "Look at the strokes.",
    ):
        assert text in content


def test_a_picture_names_its_cell_and_both_scales(tmp_path):
    page = pages.ClassPage(0, sections=section(pages.Gallery((picture(11, "digit 4"),), "Look.")))
    content = written(tmp_path, atlas(class_pages=(page,)))["classes/0.html"]
    assert '--x:3;--y:1" aria-label="digit 4"' in content
    assert ".s0{background-image:url(../sprites/a%20b.png);--w:28;--h:28;--c:8;--r:2" in content
    assert ".own .s0{background-image:url(../sprites/own.png)}" in content
    assert "one scale: ±2.00 activation" in content


def test_a_range_is_written_short_where_it_is_symmetric(tmp_path):
    lopsided = dataclasses.replace(SPRITE, limits=(-1.0, 2.0))
    page = pages.ClassPage(0, sections=section(pages.Gallery((pages.Picture(lopsided, 0, "digit 4"),), "Look.")))
    assert "one scale: −1.00 to 2.00 activation" in written(tmp_path, atlas(class_pages=(page,)))["classes/0.html"]


def test_nearly_all_of_the_data_is_not_all(tmp_path):
    cases = (("positive", 99.9999), ("positive", 100.0), ("positive", 0.0), ("negative", 92.0))
    made = tuple(pages.Stimulus(picture(), role, 8.0, percentile) for role, percentile in cases)
    unit = pages.UnitPage("/relu", 0, sections=section(pages.Stimuli(made, "Look.")))
    content = written(tmp_path, atlas(units=iter([unit])))["units/relu/0.html"]
    found = re.findall(r">8.00, ([^<]+)<", content)
    assert found == [
        "higher than 99.99\u202f% of the images", "higher than any image of the data",
        "no higher than any image of the data", "lower than 92\u202f% of the images",
    ]  # fmt: skip


def table(amounts: list[float], bias: float) -> pages.DissectionTable:
    rows = tuple(
        pages.DissectionRow(j, picture(), picture(), picture(), picture(), a, picture(1)) for j, a in enumerate(amounts)
    )
    check = pages.Number("gap", 0.0)
    return pages.DissectionTable(
        to_unit("/relu", 0), picture(), rows, bias, picture(), sum(amounts) + bias, (1, 2), (4, 5), check, "Look."
    )


def test_running_sums_end_at_y_in_both_orders(tmp_path):
    unit = pages.UnitPage("/relu", 0, sections=section(table([0.5, -2.0, 1.0], 0.25)))
    content = written(tmp_path, atlas(units=iter([unit])))["units/relu/0.html"]
    by_channel = re.findall(r'by-channel">.*?class="amt">([^<]+)<', content)
    by_rank = re.findall(r'by-rank">.*?class="amt">([^<]+)<', content)
    assert by_rank == ["−2.00", "−1.00", "−0.500"]  # the largest contribution first: -2, then +1, then +0.5
    assert by_channel == ["−1.50", "−0.500", "+0.500"]  # 0.5, then -2, then +1
    assert "−0.250 = y" in content


def test_units_turn_to_their_neighbours(tmp_path):
    files = written(tmp_path, atlas())
    middle = files["units/relu/1.html"]
    assert '<link rel="prev" href="../../units/relu/0.html">' in middle
    assert '<link rel="next" href="../../units/relu/2.html">' in middle
    assert 'rel="prev"' not in files["units/relu/0.html"]
    assert 'rel="next"' not in files["units/relu/2.html"]


def test_own_script_and_style_stay_small(tmp_path):
    files = written(tmp_path, atlas())
    assert sum(len(files[f"assets/{name}"]) for name in ("style.css", "atlas.js")) < 200_000
    joined = "".join(files.values())
    assert "http:" not in joined
    assert "https:" not in joined
    assert 'type="module"' not in joined
    assert "fetch(" not in joined


def test_thousands_of_units_render_in_seconds(tmp_path):
    """Two thousand bare pages: 15 s leaves room for a busy machine; quadratic work would take minutes."""
    start = time.process_time()
    assert render(atlas(2000), tmp_path) > 2000
    assert time.process_time() - start < 15


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        render(atlas(), tmp_path / "file" / "site")


def test_no_rule_of_the_pages_reaches_into_the_drawing_of_the_network(tmp_path):
    """A class of the drawing that bar lists also use would stretch its bars."""
    files = written(tmp_path, atlas())
    drawn = set(re.findall(r'<rect class="(\w+)', files["index.html"]))
    assert {"whole", "share", "solid"} <= drawn
    for name in drawn:
        assert not re.search(rf"(^|[,}}])\s*\.{name}\b", files["assets/style.css"], re.MULTILINE), name


def test_small_cells_keep_square_pixels_beside_photos(tmp_path: Path) -> None:
    writer = SpriteWriter(Store(tmp_path), pixelated=False)
    assert writer.natural("filters", torch.rand(2, 3, 7, 7)).pixelated
    assert not writer.natural("photos", torch.rand(2, 3, 40, 40)).pixelated


def test_the_later_picture_of_a_name_stays_when_the_first_takes_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, pauses = sprites._encoded, iter((0.3, 0.0))

    def slow(*picture, **options) -> bytes:
        time.sleep(next(pauses))
        return encode(*picture, **options)

    monkeypatch.setattr(sprites, "_encoded", slow)
    first, second = torch.rand(2, 2, 3, 40, 40)
    with SpriteWriter(Store(tmp_path), pixelated=False) as writer:
        writer.natural("photo", first)
        file = writer.natural("photo", second).file
    monkeypatch.undo()
    assert (tmp_path / file).read_bytes() == sprites.encoded(gridded(second, 2), file, lossless=False)


def test_threads_write_the_same_bytes(tmp_path: Path) -> None:
    cells = torch.rand(40, 2, 3, 40, 40)
    plain, threads = (SpriteWriter(Store(tmp_path / name), pixelated=False) for name in ("plain", "threads"))
    for writer in (plain, threads):
        with writer if writer is threads else contextlib.nullcontext():
            files = {writer.natural(f"photo-{place}", cells[place]).file for place in range(40)}
    assert len(files) == 40
    for file in files:
        assert (tmp_path / "plain" / file).read_bytes() == (tmp_path / "threads" / file).read_bytes()


def test_a_picture_that_cannot_be_written_ends_the_block(tmp_path: Path) -> None:
    (tmp_path / "sprites").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="sprites"), SpriteWriter(Store(tmp_path), pixelated=False) as writer:
        writer.natural("photo", torch.rand(2, 3, 40, 40))


def test_two_halves_in_a_row_stand_side_by_side(tmp_path: Path) -> None:
    titles = [("one", True), ("two", True), ("three", True), ("four", False)]
    sections = tuple(pages.Section(title, (pages.Part(pages.Facts(())),), half=half) for title, half in titles)
    content = written(tmp_path, atlas(class_pages=(pages.ClassPage(0, sections=sections),)))["classes/0.html"]
    inside = re.findall(r'<div class="halves">(.*?)</div>', content, re.DOTALL)
    assert [re.findall(r"<h2>(\w+)</h2>", row) for row in inside] == [["one", "two"]]


def test_what_is_not_shown_of_a_sum_can_be_unfolded(tmp_path: Path) -> None:
    """Six parts at first; the others, their sum, all others and the bias add up to the amount."""
    parts = tuple(pages.Step(f"conv:{k}", float(10 - k)) for k in range(9))
    root = pages.Step("score of 0", 60.0, parts=parts, rest=4.0, bias=2.0)
    unit = pages.UnitPage("/relu", 0, sections=section(pages.Decomposition(root, "Look.")))
    content = written(tmp_path, atlas(units=iter([unit])))["units/relu/0.html"]
    assert "show 3 more, together +9.00" in content
    folded = content.partition("show 3 more")[2]
    assert re.findall(r"conv:\d", folded) == ["conv:6", "conv:7", "conv:8"]
    assert "9 parts +54.0, all others +4.00, bias +2.00 = 60.0" in content


def test_the_marked_place_is_that_of_the_output_not_of_its_smaller_picture(tmp_path):
    """The picture of y has 28 x 28 pixels, the output of the unit 56 x 112: row 42 of 56 lies at three quarters."""
    sheet = dataclasses.replace(table([0.5], 0.0), position=(42, 28), size=(56, 112))
    content = written(tmp_path, atlas(units=iter([pages.UnitPage("/relu", 0, sections=section(sheet))])))
    (style,) = re.findall(r'class="spot" style="(left[^"]+)"', content["units/relu/0.html"])
    assert style == "left:25.00%;top:75.00%;width:0.89%;height:1.79%"


def test_singular_values_fill_their_scale(tmp_path):
    def drawn(*values: float) -> str:
        spectrum = pages.Spectrum((("weights", values),), "Look.")
        unit = pages.UnitPage("/relu", 0, sections=section(spectrum))
        return written(tmp_path, atlas(units=iter([unit])))["units/relu/0.html"]

    flat, steep = drawn(2.0, 1.5, 0.8), drawn(2.0, 0.1, 1e-7)
    assert ">0.2<" in flat
    assert ">0.01<" not in flat
    assert ">0.0001<" in steep


def test_a_name_without_a_page_in_the_way_up_can_be_shortened(tmp_path):
    """Only elements are shortened on a phone; a bare text would lie over the buttons beside it."""
    image = pages.ImagePage("0001", "image 0001", picture(), 1, 1)
    content = written(tmp_path, atlas(images=(image,)))["images/0001.html"]
    way = content.partition('class="crumbs"')[2].partition("</nav>")[0]
    assert "<span>cat</span>" in way
