"""Files of new objects: the slices of a series are alike in all but a few elements."""

from __future__ import annotations

from io import BytesIO
from typing import Any

_AMBIGUOUS = " or "  # of a value representation that depends on other elements
_PIXELS = 0x7FE00010


class Encoder:
    """Writes data sets as pydicom does; an element that several of them share is written once."""

    def __init__(self) -> None:
        # By identity, and with the element, so that no other one can get the same identity.
        self._written: dict[tuple[int, str], tuple[Any, bytes]] = {}

    def file(self, data: Any) -> bytes:
        """The file (PS3.10) of a pydicom data set that has its file meta information."""
        import pydicom
        from pydicom.filewriter import write_file_meta_info

        out = BytesIO()
        if data.original_encoding != (None, None):  # of what was read, elements may be unparsed
            pydicom.dcmwrite(out, data, enforce_file_format=True)
            return out.getvalue()
        out.write(bytes(128) + b"DICM")
        write_file_meta_info(out, data.file_meta)
        letters = data.get("SpecificCharacterSet", "iso8859")
        for tag in sorted(map(int, data.keys())):
            out.write(self._element(data.get_item(tag), data, letters))
        return out.getvalue()

    def _element(self, element: Any, data: Any, letters: Any) -> bytes:
        if element.tag == _PIXELS:  # large, and of one object only
            return _written(element, data, letters)
        key = (id(element), str(letters))
        if key not in self._written:
            self._written[key] = (element, _written(element, data, letters))
        return self._written[key][1]


def _written(element: Any, data: Any, letters: Any) -> bytes:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import correct_ambiguous_vr_element, write_data_element

    if _AMBIGUOUS in element.VR:
        element = correct_ambiguous_vr_element(element, data, True)
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    write_data_element(out, element, letters)
    return out.getvalue()
