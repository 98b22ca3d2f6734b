"""index.html of a batch: every result with its picture, the worst first, by verdict if wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from retreg.files.doors import replacing
from retreg_server.batch.one_pair import THUMBNAIL
from retreg_server.batch.table import TABLE, VERDICTS, Row, worst_first

PAGE = "index.html"
_STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff; }
nav label { margin-right: 1.2rem; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)); gap: 1.2rem; }
article { border: 1px solid #bbb; border-left: .5rem solid #767676; padding: .6rem; }
article.accept { border-left-color: #1a7f37; } article.check { border-left-color: #b35900; }
article.fail, article.error { border-left-color: #b3261e; }
h2 { font-size: 1rem; margin: 0 0 .4rem; overflow-wrap: anywhere; } p { margin: .3rem 0; }
img { width: 100%; height: auto; background: #000; } small { color: #555; }
"""
_FILTER = """
for (const box of document.querySelectorAll("nav input"))
  box.addEventListener("change", () => {
    for (const article of document.querySelectorAll("article." + box.value))
      article.hidden = !box.checked;
  });
"""


def write_page(out: Path, rows: Sequence[Row], total: int) -> None:
    """Write index.html for the rows of a batch of total pairs. Raises FileError."""
    counts = Counter(row["verdict"] for row in rows)
    boxes = "".join(
        f'<label><input type="checkbox" value="{verdict}" checked> {verdict} '
        f"({counts[verdict]})</label>\n"
        for verdict in VERDICTS
    )
    articles = "".join(_article(row) for row in worst_first(rows))
    text = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Registered pairs</title>
<style>{_STYLE}</style>
<h1>Registered pairs</h1>
<p>{len(rows)} of {total} pairs are done. The numbers of all are in <a href="{TABLE}">{TABLE}</a>.
Each picture shows both images in a checkerboard, before and after, and the keypoints below; a click
shows it in full.</p>
<nav>{boxes}</nav>
<main>
{articles}</main>
<p><small>Research software, not a medical device.</small></p>
<script>{_FILTER}</script>
</html>
"""
    with replacing(out / PAGE, ".html") as temporary:
        temporary.write_text(text, encoding="utf-8")


def _article(row: Row) -> str:
    folder = quote(row["name"])
    picture = ""
    if row["verdict"] != "error":
        picture = (
            f'<a href="{folder}/overlay.png"><img loading="lazy" src="{folder}/{THUMBNAIL}" '
            f'alt="Checkerboards of {escape(row["name"])} before and after"></a>'
        )
    notes = f"<p><b>Note:</b> {escape(row['notes'])}</p>" if row["notes"] else ""
    return (
        f'<article class="{row["verdict"]}"><h2>{escape(row["name"])}: {row["verdict"]}</h2>'
        f"{picture}<p>{escape(row['reason'])}</p>{notes}<p><small>{_numbers(row)}</small></p>"
        "</article>\n"
    )


def _numbers(row: Row) -> str:
    names = escape(f"{row['fixed']} ← {row['moving']}")
    if row["rotation_deg"] is None:
        return names
    shift = ", ".join(f"{row[f'shift_{axis}']:.1f}" for axis in "xyz")
    return (
        f"{names}<br>rotation {row['rotation_deg']:.1f}°, scale {row['scale']:.3f}, "
        f"shift {shift} {row['unit']}"
    )
