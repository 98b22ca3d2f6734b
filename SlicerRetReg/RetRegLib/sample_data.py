"""Demo pairs for Slicer's Sample Data module: made by the project's own generators, so free of
licences and of patients, and installed with the module, so that nothing is downloaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

CATEGORY = "RetReg"


@dataclass(frozen=True)
class Sample:
    """Two files below Resources/SampleData, and the names that their volumes get."""

    name: str
    files: tuple[str, str]
    volumes: tuple[str, str]


SAMPLES = (
    Sample(
        "RetRegFundusPair",
        ("fundus-colour.png", "fundus-angiogram.png"),
        ("FundusColour", "FundusAngiogram"),
    ),
    Sample("RetRegHeadPair", ("head-t1.nrrd", "head-t2.nrrd"), ("HeadT1", "HeadT2")),
)


def register_sample_data(resources: Path) -> None:
    """Tell Slicer's Sample Data module of the pairs; resources: the folder Resources."""
    import SampleData

    folder = resources / "SampleData"
    for sample in SAMPLES:
        paths = [(folder / name).resolve() for name in sample.files]
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=sample.name,
            thumbnailFileName=str(resources / "Icons" / f"{sample.name}.png"),
            uris=[path.as_uri() for path in paths],
            fileNames=[f"RetReg-{path.name}" for path in paths],
            nodeNames=list(sample.volumes),
            # An older file in Slicer's cache is replaced when its sum differs.
            checksums=[f"SHA256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths],
        )
