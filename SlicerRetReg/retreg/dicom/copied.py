"""What a new object copies from the images that it was made of: this table, and nothing else.

Names, dates and the description of the patient and the study are copied since the object belongs
to them. Other texts that people wrote, private elements and everything that is not listed stay
where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PATIENT_AND_STUDY = (
    "SpecificCharacterSet",
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "PatientAge", "PatientSize", "PatientWeight",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription",
    "AccessionNumber", "ReferringPhysicianName",
    "BodyPartExamined", "Laterality",
)  # fmt: skip
"""From the fixed image, into every object: whose it is, and of what."""

SPACE = ("FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition")
"""From the fixed image, into what lies on its grid."""

LOOK = (
    "WindowCenter", "WindowWidth", "AcquisitionDate", "AcquisitionTime",
    "BurnedInAnnotation", "RecognizableVisualFeatures",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
"""From the moving image, into the pictures made of it."""

BY_MODALITY = {
    "MR": (
        "ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "EchoTime",
        "EchoTrainLength", "RepetitionTime", "InversionTime", "FlipAngle", "EchoNumbers",
        "MagneticFieldStrength", "ImagingFrequency", "ImagedNucleus",
    ),
    "CT": (
        "KVP", "ScanOptions", "XRayTubeCurrent", "ExposureTime", "Exposure", "FilterType",
        "ConvolutionKernel", "AcquisitionNumber", "RescaleType",
    ),
    "OP": (
        "ImageLaterality", "AnatomicRegionSequence", "RelativeImagePositionCodeSequence",
        "AcquisitionDateTime", "AcquisitionDeviceTypeCodeSequence",
        "IlluminationTypeCodeSequence", "LightPathFilterTypeStackCodeSequence",
        "ImagePathFilterTypeStackCodeSequence", "LensesCodeSequence", "DetectorType",
        "HorizontalFieldOfView", "EmmetropicMagnification", "PupilDilated",
    ),
}  # fmt: skip
"""From the moving image: how it was taken."""

_CODE = ("CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning")


def copy(target: Any, source: Any, names: Sequence[str]) -> None:
    """Copy the named attributes that source has; of sequences only the codes of their items.

    Values that DICOM does not allow, such as an age without a unit, stay where they are.
    """
    from pydicom.config import disable_value_validation

    with disable_value_validation():  # which would write the value into warnings and logs
        for name in names:
            value = source.get(name)
            if value is None or value == "" or not _is_valid(source[name]):
                continue
            is_sequence = source[name].VR == "SQ"  # which a ScanningSequence is not
            setattr(target, name, [_code(item) for item in value] if is_sequence else value)


def _code(item: Any) -> Any:
    from pydicom.dataset import Dataset

    code = Dataset()
    copy(code, item, _CODE)
    return code


def _is_valid(element: Any) -> bool:
    from pydicom.config import RAISE
    from pydicom.valuerep import validate_value

    if element.VR in ("SQ", "PN"):
        return True
    try:
        for value in [element.value] if element.VM <= 1 else element.value:
            validate_value(element.VR, getattr(value, "original_string", value), RAISE)
    except ValueError:
        return False
    return True
