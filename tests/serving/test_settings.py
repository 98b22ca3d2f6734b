"""Where settings come from, and what they do."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import pytest
import requests

from retreg.errors import InputError
from retreg_server.commands.serve import state_folder
from retreg_server.serving.metrics import Metrics
from retreg_server.serving.middleware.request_log import JsonFormatter, TextFormatter
from retreg_server.serving.service import executor_of
from retreg_server.serving.setting_sources import add_arguments, settings_from, table
from retreg_server.serving.settings import Settings

TOKEN = "correct-horse-battery"


def settings(*flags: str, **environment: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return settings_from(parser.parse_args(flags), environment)


def test_without_a_word_the_defaults_hold():
    assert settings() == Settings()


def test_flags_come_before_the_environment_before_the_file_before_the_defaults(tmp_path):
    file = tmp_path / "retreg.toml"
    file.write_text('queue_size = 3\nport = 9000\njob_deadline_s = 5\ndevices = ["0", "1"]\n')
    found = settings("--config", str(file), "--port", "9002", RETREG_PORT="9001")
    assert (found.port, found.queue_size, found.job_deadline_s) == (9002, 3, 5.0)
    assert found.devices == ("0", "1")
    assert settings(RETREG_PORT="9001", RETREG_CONFIG=str(file)).port == 9001
    assert settings(RETREG_CONFIG=str(file)).port == 9000


def test_every_kind_of_setting_is_read_from_text():
    found = settings(
        "--reuse-results", "false", "--state-dir", "here", "--cors-origins", "https://a, https://b"
    )
    assert found.reuse_results is False
    assert found.state_dir == Path("here")
    assert found.cors_origins == ("https://a", "https://b")


@pytest.mark.parametrize(
    "flags",
    [
        ("--port", "many"),
        ("--queue-size", "-1"),
        ("--queue-size", "2.5"),
        ("--keep-s", "nan"),
        ("--reuse-results", "maybe"),
        ("--log-format", "xml"),
        ("--devices", "gpu"),
        ("--devices", ","),
        ("--cors-origins", "*"),
        ("--executor", "cloud"),
        ("--executor", "ray", "--ray-replicas", "0"),
        ("--tls-cert", "only-one.pem"),
        ("--config", "missing.toml"),
    ],
)
def test_what_is_no_value_of_a_setting_is_refused_in_words(flags):
    with pytest.raises(InputError, match=r"\.$"):
        settings(*flags)


@pytest.mark.parametrize("text", ["port = ", "prot = 1", "port = [1]", "port = true", "host = 3"])
def test_a_wrong_settings_file_is_refused_in_words(tmp_path, text):
    file = tmp_path / "retreg.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=r"\.$"):
        settings("--config", str(file))


def test_ray_without_its_package_is_refused_in_words(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "retreg_server.serving.workers.ray_executor", raising=False)
    with pytest.raises(InputError, match=r"pip install '\.\[ray\]'"):
        executor_of(settings("--executor", "ray"), Metrics())


def test_the_token_may_lie_in_a_file_that_the_settings_file_names(tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    file = tmp_path / "retreg.toml"
    file.write_text(f'host = "0.0.0.0"\ntoken_file = "{tmp_path / "token"}"\n')
    assert settings("--config", str(file)).token == TOKEN


def test_the_documentation_has_the_table_of_all_settings():
    text = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text("utf-8")
    assert table() in text


def test_each_port_has_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder(8600) == tmp_path / "retreg" / "server-8600"


def test_a_listed_origin_may_use_the_server_and_no_other(start_server):
    good, bad = {"Origin": "https://viewer.example"}, {"Origin": "https://evil.example"}
    with start_server(Settings(token=TOKEN, cors_origins=(good["Origin"],))) as server:
        auth = {"Authorization": f"Bearer {TOKEN}"}
        answer = server.get("/v1/models", headers=good | auth)
        assert answer.ok
        assert answer.headers["Access-Control-Allow-Origin"] == good["Origin"]
        preflight = {"Access-Control-Request-Method": "PUT"}
        url = f"{server.url}/v1/images/{'0' * 64}"
        assert requests.options(url, headers=good | preflight, timeout=5).ok
        assert requests.options(url, headers=bad | preflight, timeout=5).status_code == 400
        assert server.get("/v1/models", headers=bad | auth).status_code == 403
        assert server.get("/v1/models", headers=good).status_code == 401


def test_serve_refuses_files_that_are_no_certificate(tmp_path, capsys):
    from retreg_server.cli import main

    bad = tmp_path / "bad.pem"
    bad.write_text("nothing")
    flags = ["--tls-cert", str(bad), "--tls-key", str(bad), "--port", "0"]
    assert main(["serve", *flags]) == 2
    assert "TLS" in capsys.readouterr().err


def test_logs_can_be_read_by_machines_and_by_people():
    record = logging.LogRecord("x", logging.INFO, "", 1, "Job %s: %s.", ("a", "done"), None)
    record.request, record.state = "0123", "done"
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "Job a: done."
    assert (line["request"], line["state"], line["level"]) == ("0123", "done", "info")
    assert line["time"].endswith("Z")
    assert TextFormatter().format(record).endswith("INFO Job a: done. [0123]")
