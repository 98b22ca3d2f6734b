"""How an object names the images that it speaks of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retreg.dicom.source import Source

_CLASS, _INSTANCE = 0x00081150, 0x00081155  # ReferencedSOPClassUID and ReferencedSOPInstanceUID


def image_references(source: Source) -> list[Any]:
    """One item for every file of an image, with the number of the frame if one was taken."""
    from pydicom.dataset import Dataset

    items = []
    for header in source.headers:
        item = Dataset()
        item.add_new(_CLASS, "UI", header.SOPClassUID)
        item.add_new(_INSTANCE, "UI", header.SOPInstanceUID)
        if source.frame is not None and int(header.get("NumberOfFrames") or 1) > 1:
            item.ReferencedFrameNumber = source.frame
        items.append(item)
    return items


def list_references(data: Any, sources: Sequence[Source]) -> None:
    """List all images by series, those of other studies apart (PS3.3 C.12.2)."""
    from pydicom.dataset import Dataset

    studies: dict[str, dict[str, dict[str, Any]]] = {}
    for source in sources:
        study = studies.setdefault(str(source.header.StudyInstanceUID), {})
        series = study.setdefault(str(source.header.SeriesInstanceUID), {})
        for item in image_references(source):
            item.pop("ReferencedFrameNumber", None)
            series[str(item.ReferencedSOPInstanceUID)] = item
    others = []
    for study_uid, study in studies.items():
        items = []
        for series_uid, instances in study.items():
            item = Dataset()
            item.SeriesInstanceUID = series_uid
            item.ReferencedInstanceSequence = list(instances.values())
            items.append(item)
        if study_uid == data.StudyInstanceUID:
            data.ReferencedSeriesSequence = items
        else:
            other = Dataset()
            other.StudyInstanceUID, other.ReferencedSeriesSequence = study_uid, items
            others.append(other)
    if others:
        data.StudiesContainingOtherReferencedInstancesSequence = others
