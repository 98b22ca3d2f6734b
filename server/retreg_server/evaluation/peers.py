"""What the benchmarks compare: registered models, and baselines that exist for comparison only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from retreg.errors import OptionError
from retreg.image import Image
from retreg.messages import RegistrationRequest, Scalar
from retreg.transforms import Affine, Transform
from retreg_server.evaluation.ants_syn import ants_is_installed, ants_syn
from retreg_server.evaluation.cost import Cost
from retreg_server.evaluation.elastix import (
    elastix_affine,
    elastix_bspline,
    elastix_is_installed,
)
from retreg_server.evaluation.flow_peers import (
    Flow,
    dis_flow,
    skimage_is_installed,
    tvl1_flow,
    variational_flow,
    with_flow,
)
from retreg_server.evaluation.global_start import after_affine
from retreg_server.evaluation.peer_worker import PeerWorker, Register
from retreg_server.evaluation.sift import sift_homography
from retreg_server.registration.engine import register as run_engine
from retreg_server.registration.registry import get_model, offered_models

INSTALLED = {
    "elastix-affine": ("itk-elastix", elastix_is_installed),
    "elastix-bspline": ("itk-elastix", elastix_is_installed),
    "ants-syn": ("antspyx", ants_is_installed),
    "tvl1-flow": ("scikit-image", skimage_is_installed),
}


@dataclass(frozen=True, eq=False)
class Answer:
    """A transform from fixed to moving, and the verdict when the method gives one.

    cost: set by methods that work in another process; others are measured from outside.
    """

    transform: Transform
    verdict: str = ""
    reason: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    cost: Cost | None = None


Method = Callable[[Image, Image], Answer]


def method_by_name(name: str, family: str | None = None) -> Method:
    """The method "MODEL" or "MODEL:FAMILY", where FAMILY is a transform such as affine.

    family is the transform for models that are named without one. Raises OptionError when the
    name or the family is not known.
    """
    base, _, own_family = name.partition(":")
    baselines: dict[str, Callable[[], Method]] = {
        "identity": lambda: _identity,
        "sift-homography": lambda: _sift_homography,
        "elastix-affine": _elastix_affine,
        "elastix-bspline": lambda: _deformable("elastix", elastix_bspline),
        "ants-syn": lambda: _deformable("ANTs", ants_syn),
        "dis-flow": lambda: _flow(dis_flow),
        "tvl1-flow": lambda: _flow(tvl1_flow),
        "variational-flow": lambda: _flow(variational_flow),
    }
    if base in baselines and not own_family:
        return baselines[base]()
    if base not in offered_models():
        known = ", ".join([*offered_models(), *baselines])
        raise OptionError(f"The model {name!r} is not known; use one of {known}.")
    return _model(base, own_family or family)


def is_missing(name: str) -> str:
    """The sentence that tells why a baseline cannot run here, or nothing."""
    package, is_installed = INSTALLED.get(name, ("", None))
    if is_installed is None or is_installed():
        return ""
    return (
        f"{name} is left out because {package} is not installed; install the extra 'peers' of "
        "this project to compare with it."
    )


def _model(name: str, family: str | None) -> Method:
    options: dict[str, Scalar] = {} if family is None else {"transform": family}
    get_model(name).info.complete(options)

    def run(fixed: Image, moving: Image) -> Answer:
        result = run_engine(RegistrationRequest(fixed, moving, name, options))
        quality = result.quality
        return Answer(result.transform, quality.verdict, quality.reason, quality.numbers)

    return run


def _identity(_fixed: Image, _moving: Image) -> Answer:
    return Answer(Affine.identity())


def _sift_homography(fixed: Image, moving: Image) -> Answer:
    return Answer(sift_homography(fixed, moving))


def _flow(flow: Flow) -> Method:
    def run(fixed: Image, moving: Image) -> Answer:
        return Answer(with_flow(flow, fixed, moving))

    return run


def _elastix_affine() -> Method:
    worker = PeerWorker("elastix", elastix_affine)

    def run(fixed: Image, moving: Image) -> Answer:
        matrix, cost = worker(fixed, moving)
        return Answer(Affine(matrix), cost=cost)

    return run


def _deformable(name: str, register: Register) -> Method:
    """A deformable baseline after the affine of auto-brain, whose cost is counted in."""
    worker = PeerWorker(name, register)

    def run(fixed: Image, moving: Image) -> Answer:
        transform, cost = after_affine(worker, fixed, moving)
        return Answer(transform, cost=cost)

    return run
