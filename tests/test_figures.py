import re
import shutil
import subprocess

import numpy as np
import pytest
from scipy import stats

from mlworkbench.core.errors import WorkbenchError
from mlworkbench.core.markup import interval_drawing
from mlworkbench.modelling.bands import group_effects, ranked_effects
from mlworkbench.modelling.curves import Scored, gain, precision_recall, roc
from mlworkbench.modelling.difference_figures import difference_plot, forest
from mlworkbench.modelling.learning import learning_curve
from mlworkbench.modelling.probability_figures import calibration, score_histogram
from mlworkbench.modelling.resampling import Difference
from mlworkbench.modelling.style import DARK, LIGHT, page, wilson

EVIL = "<img src=x onerror=alert(1)><a href='javascript:alert(1)'>x</a>"


def runs(k=2, n=3000, name="run {}"):
    rng = np.random.default_rng(k)
    label = (rng.random(n) < 0.1) * 1
    logit = 1.5 * (rng.normal(size=n) + 1.5 * label) - 3.3
    return [
        Scored(name.format(i), label, 1 / (1 + np.exp(-logit - 0.3 * i * rng.normal(size=n))))
        for i in range(k)
    ]


def difference(value=0.01, half=0.004, n=900, clusters=0):
    word = "entities" if clusters else "rows"
    return Difference("auc", value, value - half, value + half, 0.01, n, clusters, word)


def every(dark, k=2, name="run {}"):
    made = runs(k, name=name)
    steps = np.arange(1, 300)
    return {
        "roc": roc(made, subject="Frauds", dark=dark),
        "precision_recall": precision_recall(made, subject="Frauds", dark=dark),
        "gain": gain(made, subject="Frauds", dark=dark),
        "calibration": calibration(made, subject="Frauds", dark=dark),
        "score_histogram": score_histogram(made[0], subject="Frauds", dark=dark),
        "difference": difference_plot(
            difference(), names=(name.format(0), name.format(1)), worth=0.005, dark=dark
        ),
        "forest": forest({name.format("a"): difference(), "b": difference(-0.02)}, dark=dark),
        "learning": learning_curve({name.format(0): (steps, 1 / steps)}, dark=dark),
    }


@pytest.mark.parametrize("dark", [False, True])
def test_every_figure_has_the_one_style(dark):
    theme = DARK if dark else LIGHT
    for name, figure in every(dark).items():
        layout = figure.layout
        assert layout.title.text and layout.title.subtitle.text, name
        assert layout.xaxis.title.text, name
        assert layout.height, f"{name}: JupyterLab gives 360 pixels to a figure that does not say"
        assert layout.template.layout.paper_bgcolor == theme.ground
        assert layout.template.layout.font.size == 13
        assert layout.template.layout.font.color == theme.ink
        assert not layout.showlegend


def test_a_run_keeps_its_colour_in_every_figure():
    made = every(False)
    for name in ("roc", "precision_recall", "gain", "calibration"):
        lines = [t for t in made[name].data if t.name and t.name.startswith("run")]
        assert [t.line.color for t in lines] == list(LIGHT.palette[:2]), name
        assert lines[0].line.dash != lines[1].line.dash


def test_labels_at_the_lines_up_to_three_and_a_legend_beyond():
    assert len(roc(runs(3)).layout.annotations) == 3
    four = roc(runs(4))
    assert four.layout.showlegend and not four.layout.annotations


def test_names_are_text_and_never_markup():
    for figure in every(False, name=EVIL + " {}").values():
        said = figure.to_json()
        said = said.replace("\\u003c", "<")
        assert "<img" not in said and "<a " not in said


def test_a_page_loads_nothing_from_a_network():
    html = page(roc(runs()))
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=", html)
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", html, flags=re.S)
    ours = [s for s in scripts if len(s) < 200_000]  # the long one is plotly.js itself
    assert len(ours) < len(scripts) and not any("//" in s.replace("\\/", "/") for s in ours)


def test_grey_when_it_crosses_zero_and_first_colour_when_better():
    theme = LIGHT
    colour = lambda *a, **k: difference_plot(difference(*a), **k).data[0].marker.color  # noqa: E731
    assert colour(0.01, 0.02) == theme.unsure
    assert colour(0.01, 0.004) == theme.palette[0] == colour(-0.01, 0.004, higher=False)
    assert colour(-0.01, 0.004) == theme.palette[1]
    assert difference_plot(difference()).data[0].error_x.array[0] == pytest.approx(0.004)


def test_forest_puts_the_worst_on_top_and_keeps_weeks_in_order():
    many = {"a": difference(0.01), "b": difference(-0.02), "c": difference(0.0)}
    assert [t.split()[0] for t in forest(many).layout.yaxis.ticktext] == ["b", "c", "a"]
    assert [t.split()[0] for t in forest(many, higher=False).layout.yaxis.ticktext] == [
        "a",
        "c",
        "b",
    ]
    assert [t.split()[0] for t in forest(many, sort=False).layout.yaxis.ticktext] == [
        "a",
        "b",
        "c",
    ]
    figure = forest(many)
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]  # first item at the top


def test_curves_pass_through_their_ends_and_stay_small():
    figure = roc(runs(1, n=60_000))
    line = figure.data[-1]
    assert (line.x[0], line.y[0], line.x[-1], line.y[-1]) == (0, 0, 1, 1) and len(line.x) <= 400
    assert np.all(np.diff(line.x) >= 0) and np.all(np.diff(line.y) >= 0)
    pr = precision_recall(runs(1, n=60_000)).data[-1]
    assert pr.x[-1] == 1 and min(pr.y) > 0


def test_bands_are_wilsons():
    low, high = wilson([3], [10])
    assert (low[0], high[0]) == pytest.approx((0.10779, 0.60322), abs=1e-4)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(WorkbenchError, match="at least one run"):
        roc([])
    with pytest.raises(WorkbenchError, match="one class"):
        roc([Scored("a", [1, 1], [0.1, 0.2])])
    with pytest.raises(WorkbenchError, match="no probabilities"):
        calibration([Scored("a", [0, 1], [-3, 4])])
    with pytest.raises(WorkbenchError, match="slice"):
        forest({})


def _linear(colour):
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def _contrast(one, two):
    a, b = sorted(float(_linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (one, two))
    return (b + 0.05) / (a + 0.05)


def _lab(linear):
    to = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    v = to @ np.clip(linear, 0, 1) / [0.9505, 1, 1.089]
    v = np.where(v > 0.008856, np.cbrt(v), 7.787 * v + 16 / 116)
    return np.array([116 * v[1] - 16, 500 * (v[0] - v[1]), 200 * (v[1] - v[2])])


# Machado, Oliveira, Fernandes (2009), severity 1
SEEN = {
    "all colours": np.eye(3),
    "no red": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "no green": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.01182, 0.04294, 0.968881],
        ]
    ),
}


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_can_be_told_apart_and_read(theme):
    assert _contrast(theme.ink, theme.ground) > 7 and _contrast(theme.muted, theme.ground) > 4.5
    assert _contrast(theme.unsure, theme.ground) > 3
    for colour in theme.palette:
        assert _contrast(colour, theme.ground) >= 3, colour
    for who, matrix in SEEN.items():
        labs = [_lab(matrix @ _linear(c)) for c in theme.palette]
        apart = min(np.linalg.norm(a - b) for i, a in enumerate(labs) for b in labs[:i])
        assert apart > 20, (who, apart)


def test_better_and_worse_are_two_colours_for_everybody():
    """Of a drawn interval in a notebook, on white and on JupyterLab's dark ground."""
    drawn = {b: interval_drawing(2, 1, 3, b) for b in (True, False, None)}
    colours = {b: re.search(r'fill="(#[0-9a-f]{6})"', d)[1] for b, d in drawn.items()}
    for ground in ("#ffffff", "#111111"):
        assert all(_contrast(c, ground) >= 3 for c in colours.values()), ground
    for who, matrix in SEEN.items():
        better, worse, unsure = (_lab(matrix @ _linear(c)) for c in colours.values())
        assert np.linalg.norm(better - worse) > 60, who
        assert min(np.linalg.norm(x - unsure) for x in (better, worse)) > 20, who


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium")
def test_a_browser_draws_it_without_a_network(tmp_path):
    path = tmp_path / "roc.html"
    path.write_text(page(roc(runs(name=EVIL + " {}"))))
    shot = subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=6000",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--dump-dom",
            str(path),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "main-svg" in shot.stdout and '<img src="x"' not in shot.stdout


@pytest.fixture
def drawn(tmp_path):
    """A function that draws a figure in a browser, and returns where its legend and its words stand."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not shutil.which("chromium"):
        pytest.skip("needs Debian's chromium")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        seen = browser.new_page(viewport={"width": 900, "height": 800})

        def draw(figure):
            (tmp_path / "figure.html").write_text(page(figure))
            seen.goto(f"file://{tmp_path}/figure.html")
            seen.wait_for_selector(".xtitle")
            return seen

        yield draw
        browser.close()


@pytest.mark.parametrize("height", [260, 400])
def test_a_legend_lies_over_no_words_however_low_the_figure_is(drawn, height):
    seen = drawn(roc(runs(6)).update_layout(height=height))
    legend = seen.locator(".legend").bounding_box()
    assert legend["y"] + legend["height"] <= height + 8 + 1  # inside, but for the page's own margin
    for words in seen.locator(".xtitle, .xtick text").all():
        box = words.bounding_box()
        assert box["y"] + box["height"] <= legend["y"] + 1, words.text_content()


def test_no_tick_of_an_axis_in_decades_says_zero(drawn):
    rng = np.random.default_rng(0)
    label = (rng.random(20_000) < 0.01) * 1
    loud = Scored("loud", label, 1 / (1 + np.exp(12 - 4 * label - 3 * rng.normal(size=20_000))))
    said = drawn(calibration([loud])).locator(".xtick text").all_text_contents()
    assert len(said) >= 4 and len(set(said)) == len(said) and "0%" not in said


def test_bands_hold_the_truth_where_a_card_brings_many_rows(torture):
    """By entity they hold the curve of endless rows at a threshold; taken as independent, not."""
    reps, cards, size, cut = (2000 if torture else 150), 400, 8, 1.0
    held = {(name, by): 0 for name in ("found", "right", "happened") for by in (True, False)}
    card = np.arange(cards * size) // size
    for rep in range(reps):
        rng = np.random.default_rng(rep)
        label = (rng.random(cards * size) < 0.6 * (rng.random(cards) < 0.25)[card]) * 1
        of_card = 0.8 * rng.normal(size=cards)[card]
        score = label + of_card + 0.6 * rng.normal(size=cards * size)
        recall, right = stats.norm.sf(cut - 1), 0.15 * stats.norm.sf(cut - 1)
        right /= right + 0.85 * stats.norm.sf(cut)
        looked, y = score >= cut, label == 1
        hits, k = (looked & y).sum(), looked.sum()
        along = ranked_effects(label, score, card)
        group = group_effects(label, looked.astype(int), card)[1]
        for name, by in held:
            truth, of = (recall, y.sum()) if name == "found" else (right, k)
            effect = {"found": along[0][k - 1], "right": along[1][k - 1], "happened": group}[name]
            low, high = wilson(hits / (effect if by else 1), of / (effect if by else 1))
            held[name, by] += bool(low <= truth <= high)
    print({k: v / reps for k, v in held.items()})
    for (_, by), many in held.items():
        if by:
            assert many >= stats.binom.ppf(0.001, reps, 0.94)
        else:
            assert many < stats.binom.ppf(0.05, reps, 0.92)


def test_the_figures_draw_the_bands_of_entities():
    alone = runs(1)[0]
    card = np.arange(3000) // 30
    label = (np.random.default_rng(0).random(100) < 0.2)[card] * 1  # a card is fraud or is not
    score = 0.1 * alone.score + 0.9 * np.random.default_rng(1).random(100)[card]
    whole = [Scored("a", label, score, e) for e in (card, None)]
    for draw in (roc, precision_recall, gain, calibration):
        by_card, by_row = (draw([one]) for one in whole)
        assert "by entity" in by_card.layout.title.subtitle.text
        assert "independent" in by_row.layout.title.subtitle.text
        widths = []
        for figure in (by_card, by_row):
            if draw is calibration:
                line = next(t for t in figure.data if t.error_y.array is not None)
                widths.append(np.sum(line.error_y.array) + np.sum(line.error_y.arrayminus))
            else:
                at = next(i for i, t in enumerate(figure.data) if t.fill == "tonexty")
                high, low = (np.asarray(figure.data[i].y, float) for i in (at - 1, at))
                widths.append((high - low).sum())
        assert widths[0] > 1.5 * widths[1], draw
