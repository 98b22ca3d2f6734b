"""Throw mutated messages at every decoder of the wire: python benchmarks/fuzz_decoders.py SECONDS

Needs the package atheris. Whatever is not an InputError is a mistake, and ends the run.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from copy import deepcopy
from typing import Any

import atheris
import numpy as np

with atheris.instrument_imports(include=["retreg"]):
    from retreg import wire
    from retreg.errors import RetRegError
    from retreg.geometry import Grid
    from retreg.transforms import DisplacementField, ThinPlateSpline

IDENTITY = Grid((2, 2, 2), np.eye(4))
FIELD = DisplacementField(np.zeros((3, 2, 2, 2)), IDENTITY)
SPLINE = ThinPlateSpline(np.eye(4, 3), np.eye(4, 3) + 1, 0.1)
GRID = '"size":[2,2,2],"world_from_index":[[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]'
POINTS = '{"points":[[1,2,3]],"weights":[1],"inliers":[true]}'
AFFINE = '{"type":"affine","moving_from_fixed":[[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]}'
DECODERS = (wire.decode_result, wire.decode_transform, wire.decode_models, wire.decode_grid,
            wire.decode_keypoints, wire.decode_quality)  # fmt: skip
SEEDS = (
    f'{{{GRID},"channels":1,"dtype":"uint8","encoding":"zlib+shuffle"}}',
    f'{{{GRID},"channels":1,"dtype":"int16","encoding":"zstd"}}',
    f'{{"transform":{AFFINE},"fixed_keypoints":{POINTS},"moving_keypoints":{POINTS},'
    '"quality":{"numbers":{"a":"NaN"},"verdict":"accept","reason":"x"},"provenance":{}}',
    f'{{"type":"chain","transforms":[{AFFINE}]}}',
    json.dumps(wire.encode_transform(FIELD)),
    json.dumps(wire.encode_transform(SPLINE)),
    '{"models":[{"name":"a","title":"b","kinds":["volume"],"produces":["affine"],"options":[]}]}',
)


VALUES: tuple[Any, ...] = (
    *(None, True, "", "NaN", "Infinity", "x" * 5000, 0, -1, 2**63, 1e308, 1001),
    *([], {}, [[]], [None], {"type": "affine"}, [0.0] * 3, [[1e-320] * 4] * 4),
    *("deflate", "field", "tps", "chain"),
)


def one(data: bytes) -> None:
    """Change a message in a few places, and give it to every decoder."""
    choose = atheris.FuzzedDataProvider(data)
    message = json.loads(SEEDS[choose.ConsumeIntInRange(0, len(SEEDS) - 1)])
    for _ in range(choose.ConsumeIntInRange(0, 3)):
        change(message, choose)
    text = json.dumps(message)
    if choose.ConsumeBool():
        text = text.replace("1", choose.ConsumeUnicodeNoSurrogates(4))
    with suppress(RetRegError):
        decoded = wire.loads(text)
        for decode in DECODERS:
            with suppress(RetRegError):
                decode(decoded)
    with suppress(RetRegError):
        body = choose.ConsumeBytes(choose.remaining_bytes())
        wire.decode_image(wire.decode_header(text, 1 << 20), body)


def change(message: Any, choose: Any) -> None:
    """Replace or remove one value, somewhere inside."""
    while isinstance(message, (dict, list)) and message:
        keys = list(message) if isinstance(message, dict) else list(range(len(message)))
        key = keys[choose.ConsumeIntInRange(0, len(keys) - 1)]
        if not isinstance(message[key], (dict, list)) or choose.ConsumeIntInRange(0, 3) == 0:
            if choose.ConsumeBool():
                del message[key]
            else:
                value = VALUES[choose.ConsumeIntInRange(0, len(VALUES) - 1)]
                message[key] = deepcopy(value)
            return
        message = message[key]


def main() -> None:
    """Fuzz for a while."""
    atheris.Setup([sys.argv[0], f"-max_total_time={sys.argv[1]}"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
