import re
from html.parser import HTMLParser

import markdown_it
import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlworkbench.core.errors import WorkbenchError
from mlworkbench.desk.rendering import as_markdown, notebook_page, sandboxed

PAYLOADS = """<script>alert(1)</script>
<img src=x onerror=alert(1)>
<img src="x" onerror="alert(1)" />
<svg onload=alert(1)>
<svg><script>alert(1)</script></svg>
<svg><animate onbegin=alert(1) attributeName=x dur=1s>
<svg><a xlink:href="javascript:alert(1)"><text>x</text></a></svg>
<math><mi xlink:href="javascript:alert(1)">x</mi></math>
<body onload=alert(1)>
<iframe src="javascript:alert(1)"></iframe>
<iframe srcdoc="<script>alert(1)</script>"></iframe>
<object data="javascript:alert(1)"></object>
<embed src="javascript:alert(1)">
<a href="javascript:alert(1)">x</a>
<a href="JaVaScRiPt:alert(1)">x</a>
<a href=" javascript:alert(1)">x</a>
<a href="java\tscript:alert(1)">x</a>
<a href="&#106;avascript:alert(1)">x</a>
<a href="data:text/html,<script>alert(1)</script>">x</a>
<a href="vbscript:msgbox(1)">x</a>
<form action="javascript:alert(1)"><button>x</button></form>
<button formaction="javascript:alert(1)">x</button>
<input autofocus onfocus=alert(1)>
<select autofocus onfocus=alert(1)>
<textarea autofocus onfocus=alert(1)>
<video><source onerror=alert(1)></video>
<audio src=x onerror=alert(1)>
<details open ontoggle=alert(1)>
<marquee onstart=alert(1)>
<meta http-equiv="refresh" content="0;url=javascript:alert(1)">
<base href="javascript:alert(1)//">
<link rel=stylesheet href="http://evil.example/x.css">
<style>@import 'http://evil.example/x.css';</style>
<style>body{background:url(http://evil.example/x)}</style>
<div style="background:url(javascript:alert(1))">x</div>
<div style="width:expression(alert(1))">x</div>
<p onclick=alert(1)>x</p>
<table background="javascript:alert(1)"><tr><td>x</td></tr></table>
<td onmouseover=alert(1)>x</td>
<template><script>alert(1)</script></template>
<noscript><p title="</noscript><img src=x onerror=alert(1)>">
<!--><img src=x onerror=alert(1)>-->
<![CDATA[<script>alert(1)</script>]]>
<scr<script>ipt>alert(1)</scr</script>ipt>
<<script>alert(1)//<</script>
<img/src=x/onerror=alert(1)>
<img src=x:alert(1) onerror=eval(src)>
"><script>alert(1)</script>
'><img src=x onerror=alert(1)>
</pre><script>alert(1)</script>
</textarea><script>alert(1)</script>
</iframe><script>alert(1)</script>
<x onclick=alert(1)>x</x>
<isindex type=image src=1 onerror=alert(1)>
<frameset onload=alert(1)>
[x](javascript:alert(1))
[x](data:text/html;base64,PHNjcmlwdD4=)
![x](javascript:alert(1))
<javascript:alert(1)>
$\\href{javascript:alert(1)}{x}$""".split("\n")
ALLOWED = {"html", "head", "meta", "style", "body", "img"} | set(
    "a abbr b blockquote br code dd del div dl dt em h1 h2 h3 h4 h5 h6 hr i li ol p pre s small span strong sub sup table tbody td tfoot th thead tr ul caption".split()
)


class Seen(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def page_of(tmp_path, payload):
    output, v4 = nbformat.v4.new_output, nbformat.v4
    outputs = [
        output("display_data", {kind: payload})
        for kind in (
            "text/html",
            "text/markdown",
            "text/plain",
            "text/latex",
            "image/svg+xml",
            "application/javascript",
            "application/vnd.plotly.v1+json",
            "image/png",
        )
    ]
    outputs += [
        output("stream", text=payload),
        output("error", ename=payload, evalue=payload, traceback=[payload]),
    ]
    cells = [
        v4.new_markdown_cell(payload),
        v4.new_raw_cell(payload, metadata={"format": "text/html"}),
        v4.new_code_cell(payload, outputs=outputs),
    ]
    path = tmp_path / "n.ipynb"
    nbformat.write(v4.new_notebook(cells=cells, metadata={"title": payload}), path)
    return notebook_page(path)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_in_a_notebook_runs_or_is_fetched(tmp_path, payload):
    for tag, attributes in Seen(page_of(tmp_path, payload)).found:
        assert tag in ALLOWED, tag
        assert not any(
            name.startswith("on") or name in ("style", "srcdoc", "formaction")
            for name in attributes
        ), attributes
        for name in ("href", "src", "xlink:href"):
            address = re.sub(r"[\s\x00-\x20]", "", attributes.get(name) or "").lower()
            assert (
                address.startswith(("http://", "https://", "#", "data:image/"))
                or not address
                or ":" not in address
            )
        if tag == "meta" and "http-equiv" in attributes:
            assert attributes["http-equiv"] == "Content-Security-Policy"
            assert attributes["content"].startswith("default-src 'none'")


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_frame_cannot_be_left_and_a_name_is_text(tmp_path, payload):
    frame = Seen(sandboxed(page_of(tmp_path, payload))).found
    assert [t for t, _ in frame] == ["body", "iframe"] and frame[1][1]["sandbox"] == ""
    shown = Seen(
        markdown_it.MarkdownIt("commonmark", {"html": True}).render(as_markdown(payload))
    ).found
    assert [t for t, _ in shown] == ["p"]


@given(st.text(max_size=60))
def test_any_name_reads_as_itself(name):
    shown = markdown_it.MarkdownIt("commonmark", {"html": True}).render(as_markdown(name))
    text = re.sub(r"<p>|</p>", "", shown)
    assert "<" not in text
    import html

    assert html.unescape(text).strip().replace("\u2060", "") == " ".join(name.split()).replace(
        "\u2060", ""
    ).replace("\x00", "\ufffd")


def test_long_outputs_are_cut_and_broken_files_are_explained(tmp_path):
    long = nbformat.v4.new_output("stream", text="x" * 1_000_000)
    path = tmp_path / "long.ipynb"
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=[long])]), path
    )
    page = notebook_page(path)
    assert len(page) < 60_000 and "980,000 more characters" in page
    (tmp_path / "broken.ipynb").write_text("{")
    for name in ("broken.ipynb", "missing.ipynb"):
        with pytest.raises(WorkbenchError, match=name):
            notebook_page(tmp_path / name)
