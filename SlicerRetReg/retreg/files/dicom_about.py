"""What a DICOM header says of the image: photograph or scan, of whom and of what."""

from __future__ import annotations

from typing import Any

from retreg.about import About, Content

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_PHOTOGRAPHY = frozenset({"OP", "OPTENF", "XC", "GM", "ES", "SM", "DMS"})
_SCANNERS = frozenset({"MR", "CT", "PT", "NM", "OPT", "IVOCT", "BMD", "RTDOSE"})
_UNKNOWN = frozenset({"", "OT", "SC"})
_CLASSES = {  # storage classes by the beginning of their number (PS3.4 B.5)
    "2": "CT", "4": "MR", "20": "NM", "128": "PT", "130": "PT", "481.2": "RTDOSE",
    "77.1.5.4": "OPT", "77.1.5.7": "OPTENF", "77.1.5.8": "OPT", "77.1.5": "OP", "77.1": "XC",
    "1": "DX", "3.1": "US", "6": "US", "12": "XA", "13": "MG", "7": "",
}  # fmt: skip
_AROUND_EYES = ("EYE", "RETIN", "FUND", "MACUL", "OPTIC", "ORBIT", "OCUL", "HEAD", "FACE")
_CODE_CHARACTERS = 40
_PROJECTIONS = ("PROJECTION", "MIP", "MINIP", "MNIP", "MAXIMUM", "MINIMUM", "LOCALIZER", "SCOUT")


def about_of(header: Any, is_oriented: bool, notes: tuple[str, ...] = ()) -> About:
    """What a header says. is_oriented: whether the image has a direction in the body."""
    return About(
        content_of(header, is_oriented),
        notes,
        _laterality(header),
        _region(header),
        _code(_text(header, "BodyPartExamined").upper()),
        (
            _text(header, "PatientID"),
            " ".join(_text(header, "PatientName").upper().replace("^", " ").split()),
            _text(header, "PatientBirthDate"),
        ),
    )


def content_of(header: Any, is_oriented: bool) -> Content:
    """What the image shows, by modality, storage class, image type and orientation.

    A scanner's word counts more than one for unknown: de-identification and secondary captures
    often leave only one of them.
    """
    says = {_text(header, "Modality").upper(), _class(header)}
    if says & _PHOTOGRAPHY and not says & _SCANNERS:
        return "photograph"
    if says & _SCANNERS or is_oriented:
        return "projection" if is_projection(header) else "scan"
    return "" if says <= _UNKNOWN and _may_be_an_eye(header) else "other"


def _may_be_an_eye(header: Any) -> bool:
    """Unless the part of the body (PS3.16 annex L) says otherwise; cameras may say HEAD or FACE."""
    part = _text(header, "BodyPartExamined").upper()
    return not part or any(word in part for word in _AROUND_EYES)


def is_projection(header: Any) -> bool:
    """Whether the image type (PS3.3 C.7.6.1.1.2) names a projection, or a localizer of CT.

    Localizers of MR are slices.
    """
    words = image_type(header)
    if "LOCALIZER" in words and "MR" in (_text(header, "Modality"), _class(header)):
        return False
    return any(word.startswith(_PROJECTIONS) for word in words)


def image_type(header: Any) -> tuple[str, ...]:
    """The words of the image type, in capitals, also those of enhanced objects."""
    words = header.get("ImageType") or ()
    return tuple(str(w).upper() for w in ([words] if isinstance(words, str) else words))


def _class(header: Any) -> str:
    """The modality for which the storage class was made; empty if it may hold anything."""
    uid = _text(header, "SOPClassUID")
    if not uid.startswith(_STORAGE):
        return ""
    parts = uid[len(_STORAGE) :].split(".")
    beginnings = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((_CLASSES[part] for part in beginnings if part in _CLASSES), "")


def _laterality(header: Any) -> str:
    """R, L or nothing; that of the image counts more than that of the series."""
    for name in ("ImageLaterality", "FrameLaterality", "Laterality"):
        if (side := _text(header, name).upper()) in ("R", "L"):
            return side
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (header.get(name) or ())[:1]:
            for item in (group.get("FrameAnatomySequence") or ())[:1]:
                if (side := _text(item, "FrameLaterality").upper()) in ("R", "L"):
                    return side
    return ""


def _region(header: Any) -> str:
    """The code of the position on the retina (PS3.3 C.8.17.5)."""
    for item in (header.get("RelativeImagePositionCodeSequence") or ())[:1]:
        scheme, code = _text(item, "CodingSchemeDesignator"), _text(item, "CodeValue")
        return _code(f"{scheme}:{code}") if code else ""
    return ""


def _code(text: str) -> str:
    """The text, unless it is longer or stranger than a code may be."""
    return text if text.isprintable() and len(text) <= _CODE_CHARACTERS else ""


def _text(header: Any, name: str) -> str:
    value = header.get(name)
    return "" if value is None else str(value).strip()
