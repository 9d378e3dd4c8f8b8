import numpy as np
import pytest
from app_workbench import World

from mlworkbench.core.errors import UserError
from mlworkbench.modelling.comparison import compare_runs
from mlworkbench.modelling.sides import (
    against_first,
    by_week,
    changed_sides,
    metric_figure,
    scored_runs,
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("sides") / "wb")
    runs = [world.run(n, noise) for n, noise in (("one", 2.0), ("two", 0.3), ("three", 1.0))]
    return world, compare_runs(runs, wb=world.wb)


@pytest.mark.parametrize("alarms", [1, 50, 400, 10_000])
def test_both_runs_raise_the_same_alarms_and_what_cancels_is_gone(found, alarms):
    world, got = found
    sides = changed_sides(got, alarms, wb=world.wb)
    flags = sides.fields.sum()
    assert flags["both"] + flags["first"] == flags["both"] + flags["second"] == sides.alarms
    assert int(sides.fields.to_numpy().sum()) == len(got.rows) and sides.alarms <= len(got.rows)
    assert (sides.rows["flagged_by"] == "second").sum() == flags["second"]


def test_money_is_what_the_settings_say_and_turns_its_sign_with_the_runs(found):
    world, got = found
    here = changed_sides(got, 100, wb=world.wb)
    rows = here.rows
    worth = np.where(rows["label"] == 1, rows["amount"], -5.0) * np.where(
        rows["flagged_by"] == "second", 1, -1
    )
    assert np.allclose(rows["money"], worth) and np.isclose(here.money, worth.sum())
    assert list(rows["money"].abs()) == sorted(rows["money"].abs(), reverse=True)
    back = changed_sides(compare_runs([got.runs[1], got.runs[0]], wb=world.wb), 100, wb=world.wb)
    assert np.isclose(back.money, -here.money)


def test_weeks_cover_all_rows_and_each_run_is_held_against_the_first(found):
    world, got = found
    weeks = by_week(got, world.wb)
    assert len(weeks) == 3 and sum(d.n for d in weeks.values()) == len(got.rows)
    every = against_first(got, world.wb)
    assert (
        list(every) == ["two", "three"]
        and every["two"].low > 0
        and every["two"].value > every["three"].value
    )
    assert every["two"] == got.difference
    assert [c.name for c in scored_runs(got)] == ["one", "two", "three"]
    assert len(metric_figure(got, dark=True).data) == 3 * len(got.metrics)


def test_what_is_not_binary_is_refused(found):
    import dataclasses

    world, got = found
    other = dataclasses.replace(got, task="regression")
    for ask in (scored_runs, changed_sides):
        with pytest.raises(UserError, match="regression"):
            ask(other)
