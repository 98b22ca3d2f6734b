from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from retreg.errors import RegistrationError, ServerError
from retreg_server.commands import demo
from retreg_server.demo import cases, server
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.phantoms.head import make_head_pair

FUNDUS, BRAIN = cases.CASES


@pytest.fixture
def small_pairs(monkeypatch) -> None:
    """The same demonstration with smaller images."""
    fundus = replace(FUNDUS, make=lambda: make_fundus_pair(4, 512, rotation_deg=60, elastic_px=0.7))
    brain = replace(BRAIN, make=lambda: make_head_pair(4, spacing_mm=3.0, rotation_deg=100))
    monkeypatch.setattr(cases, "CASES", (fundus, brain))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a real server, which takes seconds to start."""
    with server.own_server() as found:
        yield found


@pytest.fixture
def one_server(address, monkeypatch) -> None:
    """Both demonstrations use the same server."""
    monkeypatch.setattr(server, "own_server", lambda: nullcontext(address))


def arguments(out: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return parser.parse_args(["--out", str(out)])


@pytest.mark.usefixtures("small_pairs", "one_server")
def test_both_pairs_are_right_and_the_page_is_written(tmp_path, capsys) -> None:
    assert demo.run(arguments(tmp_path / "out")) == 0
    text = capsys.readouterr().out
    assert "fundus  auto-fundus" in text
    assert "brain   auto-brain" in text
    assert (tmp_path / "out" / "index.html").exists()
    for name in ("fundus", "brain"):
        assert (tmp_path / "out" / name / "overlay.png").exists()


@pytest.mark.usefixtures("small_pairs", "one_server")
def test_a_result_beyond_the_limit_is_an_error_but_the_page_is_written(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(cases, "CASES", (replace(cases.CASES[0], limit=0.0),))
    with pytest.raises(RegistrationError, match=r"mean error is \d+\.\d px for the fundus pair"):
        demo.run(arguments(tmp_path))
    assert (tmp_path / "index.html").exists()


def test_a_server_that_does_not_start_is_said_in_a_sentence(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(server, "SERVE", ("no-such-verb",))
    with pytest.raises(ServerError, match="ended before it was ready"):
        demo.run(arguments(tmp_path))
