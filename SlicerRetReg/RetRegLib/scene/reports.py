"""What a registration says about itself, as nodes: a table of measures and its provenance."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import vtk

from retreg.messages import RegistrationResult
from retreg.quality import Quality
from RetRegLib.scene.nodes import Node


def fill_metrics(node: Node, quality: Quality) -> None:
    """The table: verdict and reason first, then every number by its name."""
    rows = [("verdict", quality.verdict), ("reason", quality.reason)]
    rows += [(name, f"{value:.6g}") for name, value in sorted(quality.numbers.items())]
    table = vtk.vtkTable()
    for title, texts in zip(("measure", "value"), zip(*rows, strict=True), strict=True):
        column = vtk.vtkStringArray()
        column.SetName(title)
        for text in texts:
            column.InsertNextValue(text)
        table.AddColumn(column)
    node.SetAndObserveTable(table)
    node.SetLocked(True)
    node.SetUseColumnTitleAsColumnHeader(True)


def metrics_of(node: Node) -> dict[str, str]:
    """The texts of the table by measure."""
    table = node.GetTable()
    measures, values = table.GetColumn(0), table.GetColumn(1)
    return {measures.GetValue(n): values.GetValue(n) for n in range(table.GetNumberOfRows())}


def fill_provenance(node: Node, provenance: dict[str, Any]) -> None:
    """The text node: JSON, for people and programs."""
    node.SetText(json.dumps(provenance, indent=1, default=str))


def note_edit(node: Node, edit: dict[str, Any] | None) -> None:
    """Write into the provenance how the transform was edited by hand since; None: it was not."""
    provenance = json.loads(node.GetText())
    provenance.pop("edited", None)
    if edit is not None:
        provenance["edited"] = {"time": _now(), **edit}
    fill_provenance(node, provenance)


def edit_of(node: Node) -> dict[str, Any]:
    """What note_edit wrote; empty when the transform was not edited, or the text was."""
    try:
        edit = json.loads(node.GetText()).get("edited", {})
    except (ValueError, AttributeError):
        return {}
    return edit if isinstance(edit, dict) else {}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def provenance_of(result: RegistrationResult, fixed: Node, moving: Node) -> dict[str, Any]:
    """How a result came about: model, hash of its weights, versions, options, seconds, time, and
    what it was judged to be."""
    return {
        **result.provenance,
        "time": _now(),
        "fixed": fixed.GetName(),
        "moving": moving.GetName(),
        "transform": type(result.transform).__name__,
        "verdict": result.quality.verdict,
        "reason": result.quality.reason,
        "quality": dict(result.quality.numbers),
        "notes": list(result.notes),
    }
