"""What is seen: on light and dark, by people who tell colours apart differently, in another zone."""

import datetime as dt
import time

import numpy as np
import pandas as pd
import pytest

from mlworkbench.core.markup import Listing, moment_text
from mlworkbench.execution.journal import log_metric
from mlworkbench.execution.opening import close_run, open_run
from mlworkbench.modelling.curves import Scored, roc
from mlworkbench.modelling.explanation_figures import shap_figure
from mlworkbench.modelling.probability_figures import score_histogram
from mlworkbench.modelling.repeats import group_repeats
from mlworkbench.modelling.run_figures import usage_figure
from mlworkbench.modelling.studies import list_studies, open_study
from mlworkbench.modelling.style import DARK, LIGHT, repainted


def light(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return np.dot([0.2126, 0.7152, 0.0722], [((p + 0.055) / 1.055) ** 2.4 for p in parts])


def contrast(one: str, other: str) -> float:
    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_a_figures_words_stand_on_the_ground_they_were_chosen_for(theme):
    label = np.arange(400) % 4 == 0
    drawn = roc([Scored("a", label * 1, np.linspace(0, 1, 400))], dark=theme is DARK)
    layout = drawn.layout.template.layout
    assert contrast(layout.font.color, layout.paper_bgcolor) > 4.5
    assert contrast(layout.xaxis.title.font.color, layout.paper_bgcolor) > 4.5


def test_both_ends_of_an_explanation_are_seen_on_both_grounds():
    values = pd.DataFrame({"amount": np.arange(40.0)})
    drawn = shap_figure(values, np.linspace(-1, 1, 40)[:, None])
    for figure, theme in ((drawn, LIGHT), (repainted(drawn), DARK)):
        ends = [colour for _, colour in figure.data[0].marker.colorscale]
        assert min(contrast(c, theme.ground) for c in ends) > 3, (ends, theme.ground)
    assert "low" in drawn.layout.title.subtitle.text, "the words say which end is high"


def test_people_see_the_clock_on_their_wall_and_its_zone(monkeypatch):
    moment = dt.datetime(2026, 7, 1, 22, 30)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert moment_text(moment) == "2026-07-02 00:30:00 CEST"
        assert "00:30:00 CEST" in Listing([{"started": moment}])._repr_html_()
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_grid_that_is_watched_reads_its_own_runs_alone(wb, monkeypatch):
    from mlworkbench.desk import grid_views

    open_run("alone", wb=wb)
    runs = [open_run(marks={"place": f"{g}:0"}, wb=wb).run for g in ("g", "gg", "g%")]
    asked, read = [], grid_views.read_runs
    monkeypatch.setattr(grid_views, "read_runs", lambda ids, wb: asked.extend(ids) or read(ids, wb))
    assert [r.run for r in grid_views.get_grid("g", wb)] == runs[:1] == asked
    assert list(grid_views.grid_runs(wb)) == ["g%", "gg", "g"]


def test_a_run_that_has_just_gone_takes_no_minus_five_cores():
    usage = {"seconds": [1, 2, 3], "cpu": [0.5, 1.5, 0], "memory": [2e8, 3e8, 0]}
    figure = usage_figure(usage, cores=2)
    assert list(figure.data[0].y) == [0.5, 1.0] and list(figure.data[1].y) == [200, 300]


def test_the_mean_of_seeds_stays_inside_its_metric(wb):
    for seed, auc in ((1, 0.985), (2, 0.999)):
        run = open_run(values={"seed": seed}, wb=wb)
        log_metric("auc", auc, run=run.run, wb=wb)
        close_run(run.run, "finished", wb=wb)
    low, high = group_repeats(wb=wb)[["low", "high"]].to_numpy()[0]
    assert 0.9 < low < 0.985 and high == 1.0


def test_a_study_says_when_it_began_in_utc(wb, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        study = open_study("mine", wb=wb)
        study.tell(study.ask(), 0.5)
        began = list_studies(wb)["began"][0]
        assert abs(dt.datetime.now(dt.UTC) - began) < dt.timedelta(hours=1)
        assert began.utcoffset() == dt.timedelta(0)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_rare_scores_are_spread_out_and_others_are_left_even():
    rng = np.random.default_rng(1)
    label = (rng.random(20_000) < 0.005) * 1
    score = 1 / (1 + np.exp(7 - 4 * label - rng.normal(size=20_000)))
    rare = score_histogram(Scored("model", label, score))
    assert max(rare.data[1].y) < 0.3 and "log odds" in rare.layout.xaxis.title.text
    assert "0.001" in rare.layout.xaxis.ticktext and rare.data[0].name == "positives"
    even = score_histogram(Scored("model", label, rng.random(20_000)))
    assert even.layout.xaxis.title.text == "score"
