"""Register odd images and look for crashes: python benchmarks/sweep_volumes.py [COUNT] [FIRST]

Each image is written and read, and registered to itself and, if it is a volume, to a head, with
searches cut short. Whatever is not a RetRegError is a mistake. Prints those, and the peak memory.
"""

from __future__ import annotations

import resource
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from retreg.errors import RetRegError
from retreg.files import read_image, write_image
from retreg.image import Image
from retreg.messages import RegistrationRequest
from retreg_server.phantoms.head import make_head_pair
from retreg_server.phantoms.odd_images import odd_image
from retreg_server.registration import engine
from retreg_server.registration.quality import volume as volume_quality
from retreg_server.registration.registry import default_model
from retreg_server.registration.volume import global_alignment, volume_pair
from retreg_server.serving.workers.process_main import limit_memory

MEMORY_BYTES = 6 << 30
SHORT = {
    global_alignment: {
        **{"ROTATIONS": 30, "CLIMBERS": 2, "COPIES": 2, "COARSE_POINTS": 300, "FINE_POINTS": 300},
        **{"SLAB_STEPS": (0.2,), "CLEAR_MARGIN": -1.0, "SAME_PLACE_MM": 1e9},  # no network
    },
    volume_pair: {"FINE_VOXELS": 40, "THROUGH": 8},
    volume_quality: {"SPACING": 7.0},
}


def outcome(fixed: Image, moving: Image, transform: str | None = None) -> str:
    """The verdict, the kind of refusal, or "mistake"; the traceback of a mistake is printed."""
    options = {} if transform is None else {"transform": transform}
    try:
        model = default_model(fixed, moving)
        result = engine.register(RegistrationRequest(fixed, moving, model, options))
    except RetRegError as error:
        return type(error).__name__
    except Exception:
        traceback.print_exc(limit=-3)
        return "mistake"
    return result.quality.verdict


def read_again(image: Image, folder: Path) -> Image:
    """The image after it was in a file, or itself where it cannot be stored."""
    try:
        write_image(folder / "odd.nrrd", image)
        return read_image(folder / "odd.nrrd")
    except RetRegError:
        return image


def main(count: int, first: int) -> int:
    """Exit status: 1 when there was a mistake."""
    warnings.simplefilter("ignore", RuntimeWarning)
    limit_memory(MEMORY_BYTES)
    torch.set_num_threads(1)
    for module, values in SHORT.items():
        for name, value in values.items():
            setattr(module, name, value)
    whole = make_head_pair(1, spacing_mm=6.0).fixed
    outcomes, begun = Counter[str](), time.monotonic()
    with TemporaryDirectory() as folder:
        for seed in range(first, first + count):
            label, image = odd_image(seed)
            image = read_again(image, Path(folder))
            found = [outcome(image, image)]
            if not image.is_picture:
                found.append(outcome(whole, image))
            if seed % 20 == 1:
                found.append(outcome(image, image, "deformable"))
            outcomes.update(found)
            if "mistake" in found:
                print(f"MISTAKE {label}", flush=True)  # noqa: T201 - a command
            if seed % 100 == 99:
                print(f"{seed + 1}: {outcomes}", flush=True)  # noqa: T201 - a command
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{count} images in {time.monotonic() - begun:.0f} s, peak {peak:.2f} GB: {outcomes}")  # noqa: T201 - a command
    return int(outcomes["mistake"] > 0)


if __name__ == "__main__":
    arguments = [int(each) for each in sys.argv[1:]]
    sys.exit(main(*(arguments + [2000, 0][len(arguments) :])))
