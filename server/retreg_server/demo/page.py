"""The page that shows what the demonstration did: index.html and the files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from retreg.errors import FileError
from retreg.files import write_image
from retreg_server.demo.cases import Outcome
from retreg_server.reporting.result_folder import write_outputs

HEADINGS = ("Pair", "Model", "Seconds", "Error before", "Error after", "Verdict")

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 84rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0 2rem; }
th, td { padding: .35rem 1rem .35rem 0; text-align: left; border-bottom: 1px solid #ccc; }
img { max-width: 100%; height: auto; background: #000; }
figure { margin: 0 0 1.5rem; }
figcaption, .note { color: #555; }
"""


def row(outcome: Outcome) -> tuple[str, ...]:
    """The cells below HEADINGS."""
    unit = outcome.case.unit
    return (
        outcome.case.name,
        outcome.case.model,
        f"{outcome.seconds:.1f}",
        f"{outcome.error_before:.1f} {unit}",
        f"{outcome.error_after:.2f} {unit}",
        outcome.result.quality.verdict if outcome.is_right else "wrong",
    )


def write_case(folder: Path, outcome: Outcome) -> None:
    """Write the images of a case and everything that `retreg register` writes into folder."""
    suffix = outcome.case.suffix
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"The folder {folder.name} cannot be written; choose another one with --out."
        ) from error
    write_image(folder / f"fixed{suffix}", outcome.pair.fixed)
    write_image(folder / f"moving{suffix}", outcome.pair.moving)
    write_outputs(folder, outcome.pair.fixed, outcome.pair.moving, outcome.result)


def write_page(folder: Path, outcomes: Sequence[Outcome]) -> Path:
    """Write index.html, which shows the pictures of every case; returns its path."""
    head = "".join(f"<th>{heading}</th>" for heading in HEADINGS)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row(outcome)) + "</tr>\n"
        for outcome in outcomes
    )
    sections = "".join(_section(outcome) for outcome in outcomes)
    page = folder / "index.html"
    page.write_text(
        f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>RetReg demonstration</title>
<style>{STYLE}</style>
<h1>RetReg demonstration</h1>
<p>Both pairs are simulated by the project's own generators, so the true transform is known. They
were registered by a RetReg server on this machine. Errors are mean distances to the truth. To fade
between the images and to drag keypoints: <code>retreg look {escape(folder.name)}</code></p>
<table>
<tr>{head}</tr>
{rows}</table>
{sections}<p class="note">Research software, not a medical device.</p>
</html>
""",
        encoding="utf-8",
    )
    return page


def _section(outcome: Outcome) -> str:
    case = outcome.case
    command = f"retreg register {case.name}/fixed{case.suffix} {case.name}/moving{case.suffix}"
    return f"""<h2>{escape(case.title)}</h2>
<p>{escape(case.story)}</p>
<figure>
<img src="{case.name}/overlay.png" alt="Checkerboards of the fixed and the moving image of the
{case.name} pair, before and after registration">
<figcaption>Checkerboard of fixed and moving image: before on the left, after on the right, with
the keypoints that support the transform.</figcaption>
</figure>
<p>{escape(outcome.result.quality.reason)}</p>
<p class="note">The same again, in this folder: <code>{command} -o out</code></p>
"""
