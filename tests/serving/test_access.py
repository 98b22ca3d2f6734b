"""Who may use a server, and what leaves it."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import requests

from retreg.client import Client
from retreg.errors import InputError, ServerError
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.serving.settings import Settings

TOKEN = "correct-horse-battery"
PATHS = ("/readyz", "/metrics", "/v1/info", "/v1/models", "/openapi.json", "/v1/nothing", "/",
         "/info/", f"/session/{'0' * 32}", "/auth/token/valid", "/auth/token")  # fmt: skip


@pytest.fixture(scope="module")
def a_guarded_server(start_server):
    with start_server(Settings(token=TOKEN)) as server:
        yield server


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN]
)
def test_nothing_but_health_answers_without_the_token(a_guarded_server, path, header):
    headers = {} if header is None else {"Authorization": header}
    answer = a_guarded_server.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"] == "unauthorised"
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert a_guarded_server.get("/healthz", headers=headers).ok


def test_the_token_opens_the_server(a_guarded_server):
    with Client(a_guarded_server.url, TOKEN) as client:
        assert len(client.models()) == 3


def test_a_wrong_token_is_told_in_a_sentence(a_guarded_server):
    with (
        Client(a_guarded_server.url, "wrong") as client,
        pytest.raises(ServerError, match="token is missing or wrong"),
    ):
        client.models()


def test_a_client_does_not_send_what_is_in_netrc(a_guarded_server, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password something\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setattr("retreg.exchange.is_loopback", lambda _host: False)  # as for a far server
    with Client(a_guarded_server.url, TOKEN) as client:
        assert len(client.models()) == 3


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_an_address_that_others_can_reach_needs_a_token(host):
    with pytest.raises(InputError, match="token"):
        Settings(host=host)
    assert Settings(host=host, token=TOKEN).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_no_token(host):
    assert Settings(host=host).token is None


@pytest.mark.parametrize(
    "token", ["", "short", "with a blank in it somewhere", "ümläute-zählen-nicht"]
)
def test_a_weak_or_unusable_token_is_refused(token):
    with pytest.raises(InputError, match="16 characters"):
        Settings(token=token)


def test_the_token_is_not_in_the_text_of_the_settings():
    assert TOKEN not in repr(Settings(token=TOKEN))


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Host": "[::1"},
        {"Host": "[fe80::1]:80"},
        {"Host": ""},
    ],
)
def test_a_page_of_another_origin_gets_nothing(a_server, headers):
    answer = a_server.get("/v1/models", headers=headers)
    assert answer.status_code in (400, 403)
    assert "models" not in answer.json()
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("host", ["localhost:1234", "127.0.0.1", "[::1]:80"])
def test_programs_of_this_machine_may_use_any_of_its_names(a_server, host):
    assert a_server.get("/v1/models", headers={"Host": host}).ok


def test_a_preflight_of_a_browser_is_not_granted(a_server):
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
    answer = requests.options(f"{a_server.url}/v1/images/{'0' * 64}", headers=headers, timeout=5)
    assert answer.status_code == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_logs_hold_neither_token_nor_options(a_guarded_server, caplog):
    image = Image(np.ones((1, 4, 4, 4), np.int16), Grid((4, 4, 4), np.eye(4)))
    with caplog.at_level(logging.INFO, "retreg_server"), Client(a_guarded_server.url, TOKEN) as it:
        it.register(image, image, shift=1234.5)
    assert "auto-brain" in caplog.text
    assert TOKEN not in caplog.text
    assert "1234.5" not in caplog.text


def test_pages_of_listed_origins_may_load_the_panel_and_others_may_not(start_server):
    with start_server(Settings(token=TOKEN, cors_origins=("https://viewer.example",))) as server:
        answer = server.get("/viewers/ohif.js", headers={"Origin": "https://viewer.example"})
        assert answer.headers["Access-Control-Allow-Origin"] == "https://viewer.example"
        assert answer.headers["Content-Type"].startswith("text/javascript")
        assert "getPanelModule" in answer.text
        other = server.get("/viewers/ohif.js", headers={"Origin": "https://elsewhere.example"})
        assert other.status_code == 403
        assert server.get("/look?study=1.2&fixed=1.2.3&moving=1.2.4").status_code == 200
        assert server.post("/v1/dicomweb/registrations", json={}).status_code == 401
