import base64
import hashlib
import json
import math
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.metrics.comparison import Difference
from pipeline.params import Params
from pipeline.reporting import page, summary
from pipeline.reporting.contents import DataReport, read_contents
from pipeline.reporting.contrasts import Contrast
from pipeline.reporting.scores import KINDS, printed, score

VOID = {"meta", "link", "img", "br", "line", "circle", "polyline"}


class Outline(HTMLParser):
    """What a page is made of: ids, addresses, headings, texts; tags must nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.stack.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def html(job: Params) -> str:
    return page.render(read_contents(job))


def test_every_address_is_inside_the_page(html):
    outline = Outline(html)
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in outline.tags:
        for key in ("src", "href", "action", "data", "srcset"):
            address = attributes.get(key)
            assert address is None or address.startswith("data:") or address[1:] in ids, (tag, address)
    assert "url(" not in html
    assert "@import" not in html
    assert not [tag for tag, _ in outline.tags if tag in ("iframe", "object")]
    assert not [attributes for tag, attributes in outline.tags if tag == "script" and "src" in attributes]
    policy = next(a["content"] for t, a in outline.tags if t == "meta" and "http-equiv" in a)
    script = re.search(r"<script>(.*)</script>", html, re.S)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert policy.startswith(
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}';"
    )


def test_hostile_names_are_text(html):
    assert "<script>alert" not in html
    assert html.count("<script") == 2  # one gallery, and the page's own
    assert any("<script>alert('x')</script>" in text for text in Outline(html).texts)


def test_every_picture_has_an_alternative_text_and_its_size(html):
    images = [attributes for tag, attributes in Outline(html).tags if tag == "img"]
    assert len(images) == 8 * 2 + 3 * 2 + 2 + 4 * 2 + 2
    assert all(image["alt"] and int(image["width"]) and int(image["height"]) for image in images)


def test_headings_go_down_one_level_at_a_time(html):
    levels = [int(tag[1]) for tag, _ in Outline(html).tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_neither_place_nor_time_is_in_it(html, tmp_path):
    assert str(tmp_path) not in html
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", re.sub(r"data:image/png;base64,[^\"]*", "", html))


def test_the_same_reports_give_the_same_page_wherever_they_lie(job: Params, html, tmp_path, monkeypatch):
    other = tmp_path / "elsewhere"
    shutil.copytree("reports", other / "reports")
    monkeypatch.chdir(other)
    assert page.render(read_contents(job)) == html


def test_intervals_and_tables_stand_in_the_page(html):
    text = re.sub(r"\s+", " ", " ".join(Outline(html).texts))
    assert "0.401 to 0.512" in text
    assert "What each kind of error costs" in text
    assert re.search(r"false negatives n/a n/a", text)
    assert re.search(r"map50 0.450 0.020 0.458, 0.442", text)


def test_undefined_scores_read_na(html):
    assert html.count("n/a") >= 4
    assert ">nan<" not in html.lower()
    assert ">None<" not in html


def test_the_best_of_each_dataset_is_marked(job: Params):
    contents = read_contents(job)
    assert page.best(contents.kinds["heads"], KINDS["heads"]) == {"svm_icons_lite0"}
    assert page.best(contents.kinds["generation"], KINDS["generation"]) == {"ddpm_digits"}
    assert page.best(contents.kinds["detection"], KINDS["detection"]) == set()


def judged_on_val(job: Params, *names: str) -> None:
    for name in names:
        entry = job.runs[name]
        job.runs[name] = entry.model_copy(update={"prediction": entry.prediction.model_copy(update={"split": "val"})})


def test_scores_of_another_split_are_told_and_not_held_against_those_of_test(job: Params):
    plain = summary.render(read_contents(job)), page.render(read_contents(job))
    assert "Scores on the test split. ↑" in plain[0]
    assert "scored on images that they had never seen. The" in plain[1]
    assert not any("| split |" in text or "judged on" in text for text in plain)
    judged_on_val(job, "svm_icons_lite0", "linear_icons_lite0")
    contents = read_contents(job)
    # the two of val compete with each other
    assert page.best(contents.kinds["heads"], KINDS["heads"]) == {"svm_icons_lite0", "mlp_icons_lite0"}
    assert [duel.on_features.name for duel in contents.duels] == ["mlp_icons_lite0", "knn_icons_lite0"]
    text, html = summary.render(contents), page.render(contents)
    assert "Scores on the test split, where a table names no other. ↑" in text
    assert text.count("| split |") == 1
    row = next(line for line in text.splitlines() if line.startswith("| svm\\_icons\\_lite0"))
    assert cells(row)[2:5] == [" features/icons\\_lite0 ", " val ", " **0.702** "]
    assert "scored on images that they had never seen, or on the split that a table names. The" in html
    assert html.count(", judged on val</span>") == 2


def test_bars_are_shares_or_stand_against_their_foil(job: Params):
    kinds = read_contents(job).kinds
    assert page.bar(kinds["heads"][0], KINDS["heads"]) == {"percent": "69.3", "foil": None}
    assert page.bar(kinds["segmentation"][0], KINDS["segmentation"]) == {"percent": "38.2", "foil": "6.1"}
    # FID 61.4 of 312.5
    assert page.bar(kinds["generation"][0], KINDS["generation"]) == {"percent": "19.6", "foil": None}


@pytest.mark.parametrize(
    ("model", "first", "unit"),
    [
        ("classification/resnet", 1, "epoch"),
        ("regression/linear", 0, "step"),
        ("regression/linear", 1, "combination of options, as listed"),
        ("heads/knn", 1, "combination of options, as listed"),
    ],
)
def test_the_rows_of_a_log_are_named_by_what_they_count(model, first, unit):
    rows = {"epoch": [first, first + 1], "loss": [2.0, 1.0]}
    one = SimpleNamespace(name="it", entry=SimpleNamespace(model=model), training=rows)
    ((caption, svg),) = page.charts(one)
    assert caption == f"Loss by {unit}; val is the validation split"
    assert f">{unit}</text>" in svg


def test_each_head_on_features_meets_itself_on_pixels(job: Params):
    duels = read_contents(job).duels
    assert [(duel.on_features.name, duel.on_pixels.name) for duel in duels] == [
        (f"{head}_icons_lite0", f"{head}_icons_pixels") for head in ("linear", "mlp", "knn", "svm")
    ]
    assert duels[0].gain == pytest.approx(0.693 - 0.512)


def test_statistics_are_sorted_by_shape_and_by_meaning():
    given = {
        "tasks": ["classification"],
        "licence": "CC0",
        "counts": {"test": 1, "train": 3, "val": 2},
        "objects_per_image": {"1": {"test": 4, "train": 5}, "10": {"test": 6, "train": 7}, "2": {"train": 8}},
        "empty": {},
    }
    assert page.statistics(DataReport("d", given, [])) == {
        "facts": [("licence", "CC0"), ("tasks", "classification")],
        "tables": [{"title": "counts", "rows": {"train": 3, "val": 2, "test": 1}}],
        "matrices": [
            {
                "title": "objects per image",
                "columns": ["train", "test"],
                "rows": {"1": [5, 4], "2": [8, None], "10": [7, 6]},
            }
        ],
    }


def test_a_score_has_the_direction_of_its_metric():
    assert [score("detection", "map50").arrow, score("generative", "fid").arrow] == ["↑", "↓"]
    assert score("generative", "fid_noise").arrow == ""
    assert score("classification", "top3").label == "top-3"
    assert score("of_tomorrow", "new_score") == score("classification", "new_score")


def test_every_main_score_is_the_headline_of_a_metrics_table():
    for kind in KINDS.values():
        for name in (kind.main, *kind.others, *filter(None, [kind.foil])):
            assert score(kind.task, name).description, name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "n/a"),
        (math.nan, "n/a"),
        (-math.inf, "n/a"),
        (0, "0"),
        (1797, "1,797"),
        (0.0, "0.000"),
        (0.9995, "1.000"),
        (0.00012, "1.2e-04"),
        (-0.25, "-0.250"),
        (61.44, "61.4"),
        (12345.6, "12,346"),
        ("word", "word"),
        (True, "True"),
    ],
)
def test_numbers_are_printed_as_a_reader_wants_them(value, text):
    assert printed(value) == text


def cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line)[1:-1]


def test_the_summary_has_whole_tables_and_links_that_exist(job: Params):
    text = summary.render(read_contents(job))
    lines = text.splitlines()
    rows = [line for line in lines if line.startswith("|")]
    blocks: list[list[str]] = []
    for before, line in pairwise(["", *lines]):
        if line.startswith("|"):
            if not before.startswith("|"):
                blocks.append([])
            blocks[-1].append(line)
    assert len(blocks) == 7  # five kinds of work, the duels, the licences
    assert all(len({len(cells(row)) for row in block}) == 1 for block in blocks)
    assert any("**0.693**" in row for row in rows)
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert len(links) == 7  # predictions of three networks, samples of two generators, two visualisations
    assert all((Path("reports") / link).is_file() for link in links)
    assert "<script" not in text
    assert "| fcos\\_scenes | detection/fcos | raw/openmoji\\_scenes | **0.458** | 0.271 | 0.280 | 0.440 |" in lines


def test_pipes_and_backticks_do_not_leave_their_cell():
    assert summary.text("a|b `c`\nd <i>") == "a\\|b \\`c\\` d &lt;i&gt;"


@pytest.fixture
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium with chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_browser_opens_it_from_disk_without_complaint(job: Params, html, browser, tmp_path):
    place = tmp_path / "index.html"
    place.write_text(html, encoding="utf-8")
    browser.set_window_size(1200, 900)
    browser.get(place.as_uri())
    assert browser.title == "Vision pipeline: report"
    headings = [element.text for element in browser.find_elements("css selector", "h2")]
    assert headings == [
        "Overview",
        "Features or pixels",
        *(members[0].kind.title for members in read_contents(job).kinds.values()),
        "Datasets",
        "Augmentations",
        "Visualisations",
    ]
    broken = "return [...document.images].filter(i => !(i.complete && i.naturalWidth)).length"
    assert browser.execute_script(broken) == 0
    assert browser.get_log("browser") == []
    asked = [
        entry["message"] for entry in browser.get_log("performance") if "Network.requestWillBeSent" in entry["message"]
    ]
    assert all(re.search(r'"url":"(file|data):', message) for message in asked)
    resize(browser, 360)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360


def resize(browser, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_on_a_phone_each_cell_stands_below_the_heading_of_its_column(job: Params, browser, tmp_path):
    chance = Difference("top1", 0.2, 0.5, 0.1, 0.4, 0.01, 0.01, "better")
    contrast = Contrast("a", "It learns.", "classification", "test", "resnet_digits", "chance", chance, "shows", "")
    place = tmp_path / "index.html"
    place.write_text(page.render(read_contents(job), [contrast]), encoding="utf-8")
    resize(browser, 360)
    browser.get(place.as_uri())
    shown = """return [...document.querySelectorAll("main table")].filter(t => t.tHead).map(t =>
        [t.tHead.rows[0], t.tBodies[0].rows[0]].map(row => [...row.cells].map(c => getComputedStyle(c).display)))"""
    tables = browser.execute_script(shown)
    assert len(tables) > 6
    assert all(head == first for head, first in tables)
    assert browser.find_elements("css selector", ".contrasts tbody td")[-1].text.startswith("+0.300")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_picture_is_enlarged_by_keyboard_and_made_small_again(html, browser, tmp_path):
    place = tmp_path / "index.html"
    place.write_text(html, encoding="utf-8")
    for width, grows_by in ((1400, 1.8), (360, 1.3)):
        resize(browser, width)
        browser.get(place.as_uri())
        button = browser.find_element("css selector", ".pictures > figure + figure > .enlarge")
        image = button.find_element("css selector", "img")
        browser.execute_script("arguments[0].style.width = '900px'", image)  # the pictures of the test are tiny
        small = image.size["width"]
        button.send_keys("\n")
        assert button.get_attribute("aria-expanded") == "true"
        assert image.size["width"] > grows_by * small
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        button.send_keys("\n")
        assert button.get_attribute("aria-expanded") == "false"
        assert image.size["width"] == small
    assert browser.get_log("browser") == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_tables_sort_and_galleries_filter_in_a_browser(html, browser, tmp_path):
    place = tmp_path / "index.html"
    place.write_text(html, encoding="utf-8")
    browser.get(place.as_uri())

    def texts(selector: str) -> list[str]:
        return [element.text for element in browser.find_elements("css selector", selector)]

    def visible(selector: str) -> int:
        return sum(element.is_displayed() for element in browser.find_elements("css selector", selector))

    def choose(index: int, value: object) -> None:
        control = browser.find_elements("css selector", ".controls label > input, .controls label > select")[index]
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
        browser.execute_script(script, control, value)

    heads = "#overview table:first-of-type tbody th"
    first = [name for name in texts(heads) if "_icons_" in name][:8]
    assert first[0] == "linear_icons_lite0"
    browser.find_elements("css selector", "#overview table thead .sort")[2].send_keys("\n")  # by keyboard
    sorted_down = [name for name in texts(heads) if "_icons_" in name][:8]
    # top-1: svm .702, linear .693, mlp .671, knn .604, then the same on pixels: .537 .528 .512 .471
    assert [name.split("_")[0] for name in sorted_down] == [
        "svm",
        "linear",
        "mlp",
        "knn",
        "svm",
        "mlp",
        "linear",
        "knn",
    ]
    browser.find_elements("css selector", "#overview table thead .sort")[2].send_keys("\n")  # by keyboard
    assert [name for name in texts(heads) if "_icons_" in name][:8] == sorted_down[::-1]
    assert browser.find_element("css selector", "#overview th[aria-sort]").get_attribute("aria-sort") == "ascending"

    details = browser.find_element("css selector", "details:has(.gallery)")
    details.find_element("css selector", "summary").send_keys("\n")
    pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait(browser, 5).until(
        lambda _: texts("[role=status]") == ["3 of 3 images"]
    )
    assert visible(".item rect") == 4  # at scores from 0.3: two truths and two answers
    choose(0, 0.5)
    assert visible(".item rect") == 3  # 0.35 is hidden
    choose(0, 0.95)
    assert visible(".item rect") == 2
    choose(0, 0.3)
    choose(2, "background")
    # the image without marks has nothing to be judged by, and stays
    assert texts("[role=status]") == ["2 of 3 images"]
    assert visible(".item rect") == 1
    choose(2, "missed")
    assert [text.splitlines()[0] for text in texts(".item figcaption") if text] == ["missed", "empty"]
    choose(2, "")
    choose(1, "bird")
    assert visible(".item rect") == 3
    assert browser.get_log("browser") == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_of_labels_that_lie_over_each_other_the_best_is_read(job: Params, browser, tmp_path):
    contents = read_contents(job)
    gallery = next(one.gallery for members in contents.kinds.values() for one in members if one.gallery)
    item = next(item for item in gallery["items"] if len(item["answers"]) > 1)
    first, second = item["answers"][:2]
    second["box"] = [side + 1 for side in first["box"]]
    second["score"] = first["score"] - 0.01
    place = tmp_path / "index.html"
    place.write_text(page.render(contents), encoding="utf-8")
    resize(browser, 1200)
    browser.get(place.as_uri())
    browser.find_element("css selector", "details:has(.gallery) > summary").send_keys("\n")
    wait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait(browser, 5)
    wait.until(lambda _: browser.find_elements("css selector", ".item text"))
    figure = next(
        one for one in browser.find_elements("css selector", ".item") if item["id"] in one.get_attribute("textContent")
    )
    shown = [text.text for text in figure.find_elements("css selector", "text") if text.is_displayed()]
    assert f"{first['label']} {first['score']:.2f}" in shown
    assert f"{second['label']} {second['score']:.2f}" not in shown
    assert f"said {second['label']} {second['score']:.2f}" in figure.text


def test_a_gallery_cannot_end_its_script(html):
    content = re.search(r'<script type="application/json">(.*?)</script>', html, re.S)
    assert content is not None
    assert "<" not in content[1]
    labels = {mark["label"] for item in json.loads(content[1])["items"] for mark in item["answers"]}
    assert "<script>alert('x')</script>" in " ".join(labels)
