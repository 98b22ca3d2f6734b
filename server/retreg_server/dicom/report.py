"""The verdict and the keypoints as a structured report (TID 1500) that viewers list and draw."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from retreg.dicom.new_object import EMPTY, MAKER, SERIES_NUMBERS, give_to_study
from retreg.dicom.objects import Registered
from retreg.dicom.source import Source
from retreg.files.dicom_fiducials import PIXEL_CENTRE
from retreg.geometry import Grid
from retreg.messages import Keypoints

if TYPE_CHECKING:
    from highdicom.sr import (
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        ObservationContext,
    )

SCHEME = "99RETREG"
MOST_KEYPOINTS = 100  # those of the greatest weight; all are in the fiducials
_SERIES = 4
# By this word OHIF knows that a group is a point; each point has a tracking UID of its own, as it
# would join those with the same one in two frames of reference.
_POINT_TOOL = "Cornerstone3DTools@^0.1.0:Probe"
_WORDS = {"accept": "Accepted", "check": "To be checked"}


def report_object(registered: Registered) -> Any:
    """The pydicom data set of the report.

    One group holds the measured numbers and the verdict, and one more stands for each keypoint:
    its weight, inferred from its place. The fixed points come last: viewers go to the last one.
    """
    from highdicom.sr import CodedConcept, Comprehensive3DSR, MeasurementReport
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    report = MeasurementReport(
        observation_context=_observer(),
        procedure_reported=CodedConcept("363679005", "SCT", "Imaging procedure"),
        imaging_measurements=[_judgement(registered), *_points(registered)],
        title=codes.DCM.ImagingMeasurementReport,
    )
    fixed, moving = registered.sources
    number = SERIES_NUMBERS + _SERIES + int(fixed.header.get("SeriesNumber") or 0)
    data = Comprehensive3DSR(
        evidence=[*_evidence(fixed), *_evidence(moving)],
        content=report,
        series_instance_uid=generate_uid(prefix=None),
        series_number=number,
        sop_instance_uid=generate_uid(prefix=None),
        instance_number=1,
        manufacturer=MAKER,
        series_description="RetReg report",
    )
    give_to_study(data, fixed)
    return data


def _observer() -> ObservationContext:
    """Who says it: this software."""
    from highdicom.sr import (
        DeviceObserverIdentifyingAttributes,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    device = DeviceObserverIdentifyingAttributes(
        uid=generate_uid(prefix=None), name=MAKER, model_name=MAKER
    )
    context = ObserverContext(
        observer_type=codes.DCM.Device, observer_identifying_attributes=device
    )
    return ObservationContext(observer_device_context=context)


def _evidence(source: Source) -> Iterator[Any]:
    """The images that were used, and of nobody: highdicom puts names of patients into warnings."""
    from pydicom.dataset import Dataset

    for header in source.headers:
        item = Dataset()
        for name in EMPTY:
            setattr(item, name, "")
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
            setattr(item, name, header[name].value)
        yield item


def _judgement(registered: Registered) -> MeasurementsAndQualitativeEvaluations:
    from highdicom.sr import (
        CodedConcept,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        TrackingIdentifier,
    )
    from pydicom.uid import generate_uid

    quality = registered.result.quality
    verdict = CodedConcept(quality.verdict, SCHEME, _WORDS[quality.verdict])
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(generate_uid(prefix=None), "Registration"),
        finding_type=CodedConcept("registration", SCHEME, "Registration of two images"),
        measurements=[
            _measurement(name[:16], name.replace("_", " "), value)
            for name, value in sorted(quality.numbers.items())
            if np.isfinite(value)
        ],
        qualitative_evaluations=[
            QualitativeEvaluation(CodedConcept("verdict", SCHEME, "Verdict"), verdict)
        ],
    )


def _measurement(
    code: str, meaning: str, value: float, places: list[Any] | None = None
) -> Measurement:
    from highdicom.sr import CodedConcept, Measurement
    from pydicom.sr.codedict import codes

    return Measurement(
        name=CodedConcept(code, SCHEME, meaning),
        value=float(f"{value:.9g}"),
        unit=codes.UCUM.NoUnits,
        referenced_coordinates=places,
    )


def _points(registered: Registered) -> Iterator[MeasurementsAndQualitativeEvaluations]:
    result, (fixed, moving) = registered.result, registered.sources
    heaviest = np.argsort(-result.fixed_keypoints.weights, kind="stable")[:MOST_KEYPOINTS]
    for source, grid, points, role in (
        (moving, registered.moving.grid, result.moving_keypoints, "moving"),
        (fixed, registered.fixed.grid, result.fixed_keypoints, "fixed"),
    ):
        for n in sorted(heaviest.tolist()):
            yield _point(source, grid, points, n, role)


def _point(
    source: Source, grid: Grid, points: Keypoints, n: int, role: str
) -> MeasurementsAndQualitativeEvaluations:
    from highdicom.sr import (
        CodedConcept,
        MeasurementsAndQualitativeEvaluations,
        TrackingIdentifier,
    )
    from pydicom.uid import generate_uid

    place = _place(source, grid, points.points[n])
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(generate_uid(prefix=None), _POINT_TOOL),
        finding_type=CodedConcept(f"keypoint-{n + 1}", SCHEME, f"Keypoint {n + 1}, {role} image"),
        measurements=[_measurement("weight", "Weight of the keypoint", points.weights[n], [place])],
    )


def _place(source: Source, grid: Grid, point: np.ndarray) -> Any:
    """In space where the image has one, else in the picture."""
    from highdicom.sr import (
        CoordinatesForMeasurement,
        CoordinatesForMeasurement3D,
        SourceImageForRegion,
    )

    if source.frame_of_reference:
        return CoordinatesForMeasurement3D("POINT", point[None], source.frame_of_reference)
    header = source.header
    frames = [source.frame or 1] if int(header.get("NumberOfFrames") or 1) > 1 else None
    image = SourceImageForRegion(str(header.SOPClassUID), str(header.SOPInstanceUID), frames)
    pixel = grid.index(point[None])[:, :2] + PIXEL_CENTRE
    limits = [header.Columns, header.Rows]
    return CoordinatesForMeasurement("POINT", np.clip(pixel, 0, limits), image)
