"""`%load_ext mlworkbench` in a real kernel: SQL cells, one-line errors, displays; and every word of the user's is text."""

import re

import pytest
from kernels import Kernel

from mlworkbench.core.markup import Listing, escaped, html_table
from mlworkbench.data.catalog import snapshots
from mlworkbench.data.lake import create_workbench
from mlworkbench.data.queries import sql
from mlworkbench.execution.opening import close_run, open_run
from mlworkbench.execution.record import Run

HOSTILE = [
    "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "\"><svg onload=alert(1)>", "javascript:alert(1)",
    "</td></table><iframe src=//x>", "'\" onmouseover=alert(1) x='", "&lt;b&gt;", "<!--", "]]><a href=x>", "\u202e<b>\u0000",
]  # fmt: skip


@pytest.fixture(scope="module")
def wb(tmp_path_factory):
    return create_workbench(tmp_path_factory.mktemp("magics") / "wb")


@pytest.fixture(scope="module")
def kernel(wb):
    kernel = Kernel(wb.root, wb)
    kernel.cells("import mlworkbench as mw, pandas as pd", "%load_ext mlworkbench")
    kernel.cells(
        "people = pd.DataFrame({'id': range(100), 'name': [\"O'Brien\"] + [f'p{i}' for i in range(99)]})",
        "_ = mw.ingest(people, table='people', key='id')",
    )
    yield kernel
    kernel.end()


def test_variables_are_bound_and_never_pasted(kernel, wb):
    kernel.cells("""name = "O'Brien'; drop table people; --" """)
    assert "no rows" in kernel.cells("%%sql\nselect id from people where name = $name").text
    kernel.cells("name = \"O'Brien\"; k = 3; who = 'people'")
    assert re.search(
        r"^\s*0$", kernel.cells("%%sql\nselect id from people where name = $name").text, re.M
    )
    assert "'$k {k}'" not in kernel.cells("%sql select '$k {k}' as kept, $k as three").text
    shown = kernel.cells("%sql select '$k {k}' as kept, $k as three").text
    assert "$k {k}" in shown and shown.split()[-3] == "3"
    assert kernel.cell("%%sql\nselect * from {who}").status == "error"
    assert len(sql("from people", wb=wb).fetchall()) == 100


def test_rows_are_limited_and_counted_and_kept_under_a_name(kernel):
    shown = kernel.cells("%sql --rows 3 from people")
    assert "the first 3 of 100 rows" in shown.text and "the first 3 of 100 rows" in shown.html[0]
    shown = kernel.cells("%%sql some << --at 2\nfrom people where id < 7 -- a comment: $nothing")
    assert "some: 7 rows, 2 columns" in shown.text
    assert "DataFrame 7" in kernel.cells("print(type(some).__name__, len(some))").text
    kernel.cells("%sql rel << --relation from people")
    assert "DuckDBPyRelation" in kernel.cells("print(type(rel).__name__)").text
    assert "the first 20 of 100 rows" in kernel.cells("mw.sql('from people')").html[0]


def test_a_frame_is_reached_only_when_it_is_named(kernel):
    kernel.cells("mine = pd.DataFrame({'x': [1, 2]})")
    shown = kernel.cell("%sql select sum(x) as s from mine")
    assert shown.status == "error" and "there is no table mine" in shown.text
    assert "3" in kernel.cells("%sql --frame mine select sum(x) as s from mine").text


def test_writing_asks_for_it_and_says_the_snapshot(kernel, wb):
    shown = kernel.cell("%sql delete from people where id = 99")
    assert shown.status == "error" and "this door only reads" in shown.text
    kernel.cells("last = 99")
    shown = kernel.cells("%%sql --write\ndelete from people where id = $last")
    assert f"snapshot {snapshots(wb=wb)[-1]['snapshot']}" in shown.text
    assert "99 rows" in kernel.cells("%sql --rows 100 from people").text
    kernel.cells("%%sql --write\ninsert into people values (99, 'again')")


@pytest.mark.parametrize(
    "cell, said",
    [
        ("%sql select $nmae", "there is no variable 'nmae' for $nmae. Did you mean 'name'?"),
        ("%sql from pepole", "there is no table pepole. Did you mean 'people'?"),
        ("%%sql --wirte\nfrom people", "%%sql has no option --wirte. Did you mean 'write'?"),
        ("%sql", "there is no query"),
        ("%sql selct 1", "the query cannot be parsed"),
        ("%sql select cast(name as int) from people", "the query fails: Conversion Error"),
        ("%sql select 1; select 2", "2 statements in one query"),
        ("%sql from read_csv('/etc/passwd')", "reaches outside this workbench"),
        ("%sql --at 9999 from people", "there is no snapshot 9999"),
        ("%sql select $mw", "'mw' is a module, which is no value for $mw"),
        ("mw.get('nobody')", "there is no run 'nobody'"),
        ("mw.run('trian', table='people')", "Did you mean 'train'?"),
    ],
)
def test_a_mistake_is_one_line(kernel, cell, said):
    kernel.cells("name = 'x'")
    shown = kernel.cell(cell)
    lines = shown.text.strip().splitlines()
    assert shown.status == "error" and len(lines) == 1, shown.text
    assert lines[0].startswith("error: ") and said in lines[0]
    assert "Traceback" not in shown.text and lines[0].endswith("(%tb shows where)")


def test_the_traceback_is_there_on_demand_and_other_errors_are_left_alone(kernel):
    kernel.cell("mw.get('nobody')")
    assert "Traceback" in kernel.cell("%tb").text
    shown = kernel.cell("1 / 0")
    assert "Traceback" in shown.text and "ZeroDivisionError" in shown.text


@pytest.mark.parametrize("text", HOSTILE)
def test_every_word_of_the_users_is_text(text, wb):
    for html in (
        escaped(text),
        html_table([{text: text}], text),
        Listing([{"name": text}])._repr_html_(),
    ):
        bare = re.sub(r'</?(table|thead|tbody|tr|td|th|div|span)( style="[^"<>]*")?>', "", html)
        assert "<" not in bare and ">" not in bare, bare
        assert "\u202e" not in html and "\0" not in html
    run = open_run(text, experiment=text, values={text: text}, wb=wb)
    closed = close_run(run.run, "failed", text, wb)
    for html in (closed._repr_html_(), Listing([closed])._repr_html_()):
        assert (
            isinstance(closed, Run) and "<img" not in html and "<s" not in html.replace("<span", "")
        )
        assert "<iframe" not in html and "<a " not in html


def test_displays_need_no_extension(wb):
    kernel = Kernel(wb.root, wb)
    kernel.cells(
        "import mlworkbench as mw",
        "with mw.start_run('plain') as run: mw.log_metric('auc', .8, .7, .9)",
    )
    assert "<table>" in kernel.cells("run").html[0] and "finished" in kernel.cells("run").html[0]
    assert (
        "<table>" in kernel.cells("mw.runs()").html[0]
        and "<table>" in kernel.cells("mw.tables()").html[0]
    )
    assert "none yet" in kernel.cells("mw.models()").html[0]
    kernel.end()
