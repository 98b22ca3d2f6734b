"""The header of a NIfTI file of either version, and where its three geometries put the image.

Source: nifti1.h and nifti2.h, the definitions of the two versions by the NIfTI working group.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

NIFTI_1_BYTES, NIFTI_2_BYTES = 348, 540
NIFTI_1_VOXELS = 352  # where the voxels of a file of the first version may begin
LARGEST_NIFTI_1_AXIS = 32767
_LAYOUTS = {  # what of which type stands at which byte
    1: {"dims": ("8h", 40), "type": ("h", 70), "pixdim": ("8f", 76), "offset": ("f", 108),
        "scaling": ("2f", 112), "codes": ("2h", 252), "quaternion": ("6f", 256),
        "srows": ("12f", 280), "intent": ("h", 68), "intent_name": ("16s", 328),
        "units": ("B", 123), "bits": ("h", 72)},
    2: {"dims": ("8q", 16), "type": ("h", 12), "pixdim": ("8d", 104), "offset": ("q", 168),
        "scaling": ("2d", 176), "codes": ("2i", 344), "quaternion": ("6d", 352),
        "srows": ("12d", 400), "intent": ("i", 504), "intent_name": ("16s", 508),
        "units": ("i", 500), "bits": ("h", 14)},
}  # fmt: skip
_MM_OF_UNIT = {1: 1000.0, 3: 0.001}
_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """The bytes of a header, by name."""

    content: bytes

    @property
    def version(self) -> int:
        """1 or 2; the header starts with its own length."""
        return 2 if NIFTI_2_BYTES.to_bytes(4, "little") in self._lengths else 1

    @property
    def length(self) -> int:
        """Bytes of the header alone."""
        return NIFTI_2_BYTES if self.version == 2 else NIFTI_1_BYTES

    @property
    def magic(self) -> bytes:
        """What says that the voxels are in the same file: n+1 or n+2."""
        at = 4 if self.version == 2 else 344
        return self.content[at : at + 3]

    @property
    def byte_order(self) -> str:
        """The prefix for struct."""
        little = {n.to_bytes(4, "little") for n in (NIFTI_1_BYTES, NIFTI_2_BYTES)}
        return "<" if self.content[:4] in little else ">"

    @property
    def dims(self) -> tuple[int, ...]:
        """The number of axes and seven sizes, i fastest; those beyond the number mean nothing."""
        return self._values("dims")

    @property
    def intent(self) -> tuple[int, str]:
        """What the voxels mean: a code, and a name that the writer chose."""
        name = bytes(self._values("intent_name")[0])
        return int(self._values("intent")[0]), name.split(b"\0")[0].decode("latin-1")

    @property
    def voxel_type(self) -> int:
        """The code of the type of the voxels."""
        return int(self._values("type")[0])

    @property
    def offset(self) -> float:
        """Where the voxels start, as the file says."""
        return float(self._values("offset")[0])

    @cached_property
    def sform(self) -> np.ndarray | None:
        """(4, 4) from the index to LPS mm by the sform, or None when its code is 0."""
        if self._values("codes")[1] <= 0:
            return None
        matrix = np.eye(4)
        matrix[:3] = np.reshape(self._values("srows"), (3, 4)) * self._mm
        return _LPS_FROM_RAS @ matrix

    @cached_property
    def qform(self) -> np.ndarray | None:
        """(4, 4) from the index to LPS mm by qform and pixdim, or None when its code is 0."""
        if self._values("codes")[0] <= 0:
            return None
        b, c, d, *offset = self._values("quaternion")
        if (square := b * b + c * c + d * d) > 1:  # a half turn, to be normalised
            b, c, d = (x / np.sqrt(square) for x in (b, c, d))
        a = np.sqrt(max(0.0, 1 - square))
        turn = np.array([
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ])  # fmt: skip
        handedness, *spacing = self._values("pixdim")[:4]
        scale = np.abs(spacing) * [1, 1, -1 if handedness < 0 else 1] * self._mm
        matrix = np.eye(4)
        matrix[:3, :3] = turn * scale
        matrix[:3, 3] = np.array(offset) * self._mm
        return _LPS_FROM_RAS @ matrix

    def as_nifti_1(self, sizes: tuple[int, ...], with_forms: bool) -> bytes:
        """A header of the first version for the same voxels in other sizes, with NIFTI_1_VOXELS.

        sizes: along at most seven axes. with_forms: keep sform and qform, or leave both out.
        """
        header = bytearray(NIFTI_1_VOXELS)
        struct.pack_into(self.byte_order + "i", header, 0, NIFTI_1_BYTES)
        for name in ("type", "bits", "pixdim", "scaling", "intent", "intent_name", "quaternion",
                     "srows"):  # fmt: skip
            self._pack(header, name, self._values(name))
        self._pack(header, "dims", (len(sizes), *sizes, *[1] * (7 - len(sizes))))
        self._pack(header, "offset", (NIFTI_1_VOXELS,))
        self._pack(header, "units", (self._values("units")[0] & 0xFF,))
        self._pack(header, "codes", self._values("codes") if with_forms else (0, 0))
        header[344:347] = b"n+1"
        return bytes(header)

    @property
    def _lengths(self) -> tuple[bytes, bytes]:
        return self.content[:4], self.content[3::-1]

    @property
    def _mm(self) -> float:
        return _MM_OF_UNIT.get(self._values("units")[0] & 7, 1.0)

    def _values(self, name: str) -> tuple[Any, ...]:
        kind, at = _LAYOUTS[self.version][name]
        return struct.unpack_from(self.byte_order + kind, self.content, at)

    def _pack(self, header: bytearray, name: str, values: tuple[Any, ...]) -> None:
        kind, at = _LAYOUTS[1][name]
        struct.pack_into(self.byte_order + kind, header, at, *values)
