"""What docs/deployment.md and its examples say of containers, proxies, units and settings."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest
import yaml

from retreg_server import cli
from retreg_server.commands import alive
from retreg_server.registration.registry import get_model
from retreg_server.serving.setting_sources import (
    add_arguments,
    all_settings,
    archives_of,
    settings_from,
)

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PAGES = [ROOT / "docs" / name for name in ("deployment.md", "operations.md")]
REQUIREMENTS = ROOT / "SlicerRetReg/Resources/Server/requirements.txt"
DOCKERFILE = (ROOT / "server" / "Dockerfile").read_text()


def commands() -> list[str]:
    """Every line of `retreg …` in the pages."""
    blocks = [block for page in PAGES for block in page.read_text().split("```")[1::2]]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [re.search(r"(?:^|/bin/|\$\()retreg ([a-z].*)$", line.strip()) for line in lines]
    return [each[1].partition("  #")[0].rstrip(")") for each in found if each]


@pytest.mark.parametrize("line", commands())
def test_each_documented_command_has_these_words(line):
    words = shlex.split(line)
    parser, verb = cli._parser(words)
    assert verb == words[0]
    parser.parse_args(words)


def test_commands_are_found():
    assert {"serve", "token", "doctor"} <= {line.split()[0] for line in commands()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_file_that_a_page_names_is_there(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_each_variable_that_pages_and_examples_name_is_one_of_ours():
    known = {each.variable for each in all_settings()}
    known |= {"RETREG_CONFIG", "RETREG_TOKEN", "RETREG_TOKEN_FILE", "RETREG_DEBUG"}
    texts = [path.read_text() for path in (*PAGES, *EXAMPLES.iterdir())] + [DOCKERFILE]
    named = {name for text in texts for name in re.findall(r"\bRETREG_[A-Z_]+", text)}
    assert {"RETREG_STATE_DIR", "RETREG_HOST"} <= named <= known


def test_the_container_runs_as_a_number_and_is_built_from_hashes():
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    assert "--require-hashes -r wanted.txt -r dimse.txt" in DOCKERFILE
    name, _, checked = (ROOT / "server" / "dimse.txt").read_text().partition(" ")
    assert name in (ROOT / "constraints.txt").read_text().splitlines()
    assert re.fullmatch(r"--hash=sha256:[0-9a-f]{64}\n", checked)
    assert re.search(r'HEALTHCHECK .*CMD \["retreg", "alive"\]', DOCKERFILE)
    assert "alive" in cli.VERBS


def test_every_requirement_has_a_hash_and_the_lighter_image_has_no_part_of_cuda():
    if not shutil.which("awk"):
        pytest.skip("awk is not installed")
    command = ["awk", "-f", str(ROOT / "server" / "without_cuda.awk"), str(REQUIREMENTS)]
    light = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    whole = REQUIREMENTS.read_text()
    for text in (light, whole):
        entries = re.split(r"\n(?=[a-z])", text.strip())
        assert all("--hash=sha256:" in entry for entry in entries)
    names = re.compile(r"^([\w-]+)==", re.MULTILINE)
    gone = set(names.findall(whole)) - set(names.findall(light))
    assert {"torch", "triton", "nvidia-cublas"} <= gone
    assert all(re.match("torch|triton|nvidia|cuda", name) for name in gone)


def test_nothing_but_the_sources_is_sent_to_the_builder():
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    assert rules[0] == "*"
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    needed = {path.split("/")[0] for line in copied for path in line.split()}
    assert needed <= sent
    assert all((ROOT / name).exists() for name in sent)


def test_the_services_of_the_compose_file_fit_together(tmp_path):
    compose = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())
    retreg = compose["services"]["retreg"]
    settings = tmp_path / "retreg.toml"
    text = (EXAMPLES / "compose-retreg.toml").read_text()
    settings.write_text(text.replace("/run/secrets", str(tmp_path)))
    (tmp_path / "orthanc-password").write_text("secret")
    archives = archives_of(str(settings), {})
    assert "://orthanc:8042/" in archives["orthanc"].url
    assert "orthanc" in compose["services"]
    token = Path(retreg["environment"]["RETREG_TOKEN_FILE"]).name
    assert {"orthanc-password", token} <= set(retreg["secrets"])
    assert set(retreg["secrets"]) <= set(compose["secrets"])
    assert all(port.startswith("127.0.0.1:") for port in retreg["ports"])


def test_the_unit_is_valid(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed")
    text = (EXAMPLES / "retreg.service").read_text().replace("/opt/retreg/bin/retreg", "/bin/true")
    (tmp_path / "retreg.service").write_text(text)
    command = ["systemd-analyze", "verify", str(tmp_path / "retreg.service")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "retreg.service" not in checked.stderr, checked.stderr


def test_the_proxy_is_valid(tmp_path):
    if not (shutil.which("nginx") and shutil.which("openssl")):
        pytest.skip("nginx or openssl is not installed")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    files = ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*make.split(), *files], check=True, capture_output=True)
    server = (EXAMPLES / "nginx.conf").read_text().replace("/etc/retreg", str(tmp_path))
    first = f"pid {tmp_path}/pid; error_log stderr; events {{}}"
    whole = f"{first} http {{ access_log off;\n{server} }}"
    (tmp_path / "nginx.conf").write_text(whole)
    command = ["nginx", "-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "syntax is ok" in checked.stderr, checked.stderr


def test_the_settings_of_the_unit_need_nothing_but_its_token(tmp_path):
    (tmp_path / "token").write_text("0123456789abcdef")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--config", str(EXAMPLES / "retreg.toml")])
    settings = settings_from(args, {"RETREG_TOKEN_FILE": str(tmp_path / "token")})
    assert (settings.token, settings.log_format) == ("0123456789abcdef", "json")
    unit = (EXAMPLES / "retreg.service").read_text()
    assert "RETREG_TOKEN_FILE=%d/token" in unit
    assert "--config /etc/retreg/retreg.toml" in unit


def test_the_settings_for_c_store_are_complete():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--config", str(EXAMPLES / "retreg-dicom.toml")])
    settings = settings_from(args, {})
    peers = settings.peers
    assert (settings.dicom_port, settings.dicom_title) == (11112, "RETREG")
    assert peers.senders["mr3"].may_call_from("10.1.2.30")
    assert not peers.senders["fundus-camera"].may_call_from("10.1.2.30")
    assert peers.destinations["pacs"].port == 104
    for rule in peers.rules.values():
        assert rule.model is None or rule.options.keys() <= {
            option.name for option in get_model(rule.model).info.options
        }


def test_a_health_check_knows_a_living_server_from_a_dead_one(tmp_path, capsys):
    assert cli.main(["alive", "--state-dir", str(tmp_path)]) == 4
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (tmp_path / alive.ADDRESS_FILE).write_text(f"http://0.0.0.0:{port}")
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        assert cli.main(["alive", "--state-dir", str(tmp_path)]) == 0
    assert cli.main(["alive", "--state-dir", str(tmp_path)]) == 4
    assert "does not answer" in capsys.readouterr().err
