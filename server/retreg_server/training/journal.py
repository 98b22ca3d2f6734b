"""The log of a training run: JSON lines always, TensorBoard where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

EVERY = 50


class Journal:
    """Writes training.jsonl, and event files for TensorBoard, into a folder."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "training.jsonl").open("a", encoding="utf-8")
        self._board = _summary_writer(folder)
        self._losses: list[float] = []

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()

    def loss(self, step: int, loss: float) -> None:
        """Collect losses; the mean of every 50 is logged."""
        self._losses.append(loss)
        if step % EVERY == 0 and self._board is not None:
            self._board.add_scalar("loss", sum(self._losses[-EVERY:]) / EVERY, step)

    def check(self, step: int, seconds: float, numbers: dict[str, float]) -> None:
        """Log one validation together with the mean loss since the last one."""
        losses = self._losses or [float("nan")]
        row = {"step": step, "seconds": round(seconds, 1), "loss": sum(losses) / len(losses)}
        row |= numbers
        self._losses = []
        self._file.write(json.dumps({k: round(v, 5) for k, v in row.items()}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, step)


def _summary_writer(folder: Path) -> Any | None:
    """TensorBoard's writer, or None when the extra `train` is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
