"""The alarms and the board of the examples ask for numbers that the server has."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import yaml

from retreg import wire

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


def expressions() -> list[str]:
    board = json.loads((EXAMPLES / "grafana-retreg.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((EXAMPLES / "prometheus-rules.yml").read_text())
    return asked + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def test_each_number_and_label_that_is_asked_for_is_told(a_server, a_volume):
    header, body = wire.encode_image(a_volume)
    address = wire.image_address(header, body)
    a_server.put(f"/v1/images/{address}", data=body, headers={wire.IMAGE_HEADER: header})
    order = {"fixed": address, "moving": address, "model": "auto-brain"}
    job = a_server.post("/v1/registrations", json=order).json()["id"]
    while a_server.get(f"/v1/registrations/{job}").json()["state"] != "done":
        time.sleep(0.02)
    text = a_server.get("/metrics").text
    kinds = re.findall(r"^# TYPE (retreg_\w+) (\w+)$", text, re.MULTILINE)
    told = {name + suffix for name, kind in kinds for suffix in SUFFIXES[kind]}
    labels = set(re.findall(r'(\w+)="', text))
    asked = expressions()
    assert len(asked) >= 20
    for each in asked:
        names = set(re.findall(r"\bretreg_\w+", each))
        assert names <= told, each
        assert names or "up{" in each
        wanted = re.findall(r"(\w+)=~?\"", each) + re.findall(r"by \(([^)]*)\)", each)
        wanted = {word for words in wanted for word in re.split(r"[ ,]+", words)}
        assert wanted <= labels | {"job"}, each
