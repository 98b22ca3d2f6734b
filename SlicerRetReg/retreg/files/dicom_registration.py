"""Spatial Registration and Deformable Spatial Registration files, read into transforms.

A Spatial Registration (PS3.3 C.20.2) holds for each image the matrix that takes its points to the
registered space; a deformable one (C.20.3) the way back, from the registered space to the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retreg.errors import FileError, GeometryError
from retreg.files.dicom_header import read_object
from retreg.files.doors import existing_file, reading
from retreg.files.limits import MAX_TRANSFORM_BYTES
from retreg.files.names import usable_name
from retreg.geometry import Grid
from retreg.transforms import Affine, Chain, DisplacementField, Transform

SPATIAL_REGISTRATION = "1.2.840.10008.5.1.4.1.1.66.1"
DEFORMABLE_REGISTRATION = "1.2.840.10008.5.1.4.1.1.66.3"
REGISTRATIONS = (SPATIAL_REGISTRATION, DEFORMABLE_REGISTRATION)
_SAME = 1e-9  # as far as a matrix may be from another one that it is meant to be


@dataclass(frozen=True)
class ImageSet:
    """Images that lie in one space: UIDs of their instances, and that of their frame of reference.

    Both may be empty, but not at the same time.
    """

    frame_of_reference: str
    instances: frozenset[str]

    def is_same(self, other: ImageSet) -> bool:
        """Whether both are the same images: by instances where both name some, else by frame.

        Instances come first: de-identification may leave frames of reference behind, and series of
        one examination share theirs.
        """
        if self.instances and other.instances:
            return not self.instances.isdisjoint(other.instances)
        return bool(self.frame_of_reference) and (
            self.frame_of_reference == other.frame_of_reference
        )


@dataclass(frozen=True, eq=False)
class StoredRegistration:
    """transform: fixed to moving points, LPS mm; pictures without a place count their pixels."""

    transform: Transform
    fixed: ImageSet
    moving: ImageSet


def read_registration(path: str | Path, moving: ImageSet | None = None) -> StoredRegistration:
    """The registration in a file of one of the two kinds.

    moving: which images are meant, in a file that registers several; without it there must be one.
    Raises FileError when the file is damaged, of another kind, or leaves that open.
    """
    path = existing_file(usable_name(path), MAX_TRANSFORM_BYTES)
    with reading(path.name, "a DICOM registration"):
        return registration_of(read_object(path), path.name, moving)


def registration_of(
    data: Any, name: str = "The object", moving: ImageSet | None = None
) -> StoredRegistration:
    """As read_registration, of a pydicom data set that sentences call by its name."""
    kind = str(data.get("SOPClassUID", ""))
    if kind == SPATIAL_REGISTRATION:
        return _spatial(data, name, moving)
    if kind == DEFORMABLE_REGISTRATION:
        return _deformable(data, name, moving)
    raise FileError(
        f"{name} is a DICOM object of another kind; a Spatial Registration or a Deformable "
        "Spatial Registration was expected."
    )


def matrix_of(item: Any, name: str) -> np.ndarray:
    """The product (4, 4) of the matrices of one registration item; the first one acts first.

    Raises FileError for what is no affine matrix.
    """
    total = np.eye(4)
    for step in item.MatrixSequence:
        values = np.array(step.FrameOfReferenceTransformationMatrix, dtype=np.float64)
        if values.shape != (16,) or not np.array_equal(values[12:], (0, 0, 0, 1)):
            raise FileError(
                f"{name} holds a matrix that is not affine: 16 numbers that end in 0, 0, 0, 1 were "
                "expected; export the registration again."
            )
        total = values.reshape(4, 4) @ total
    return total


def images_of(item: Any, frame: str = "FrameOfReferenceUID") -> ImageSet:
    """The images to which one item of a registration or of fiducials refers."""
    references = item.get("ReferencedImageSequence") or ()
    instances = (str(each.get("ReferencedSOPInstanceUID", "")) for each in references)
    return ImageSet(str(item.get(frame) or ""), frozenset(instances) - {""})


def referenced_instances(data: Any) -> frozenset[str]:
    """All instances that an object lists by series, in its own study and in others (C.12.2)."""
    studies = (data, *(data.get("StudiesContainingOtherReferencedInstancesSequence") or ()))
    return frozenset(
        str(instance.ReferencedSOPInstanceUID)
        for study in studies
        for series in study.get("ReferencedSeriesSequence") or ()
        for instance in series.get("ReferencedInstanceSequence") or ()
    )


def _spatial(data: Any, name: str, moving: ImageSet | None) -> StoredRegistration:
    sets = [images_of(item) for item in data.RegistrationSequence]
    matrices = [
        matrix_of(item.MatrixRegistrationSequence[0], name) for item in data.RegistrationSequence
    ]
    own = str(data.get("FrameOfReferenceUID") or "")
    fixed = _fixed_item(sets, matrices, own)
    if fixed is None:
        fixed_set, fixed_matrix = ImageSet(own, frozenset()), np.eye(4)
    else:
        fixed_set, fixed_matrix = sets[fixed], matrices[fixed]
    others = [n for n in range(len(sets)) if n != fixed]
    chosen = _chosen(others, sets, moving, name)
    try:
        moving_from_fixed = np.linalg.solve(matrices[chosen], fixed_matrix)
        return StoredRegistration(Affine(moving_from_fixed), fixed_set, sets[chosen])
    except np.linalg.LinAlgError:
        raise GeometryError("The matrix of the registration is not invertible.") from None


def _fixed_item(sets: list[ImageSet], matrices: list[np.ndarray], own: str) -> int | None:
    """The item of the images that stay where they are, if there is one among several.

    It lies in the frame of reference of the object and does not move; one of both will do.
    """
    if len(sets) < 2:
        return None
    stays = [np.abs(matrix - np.eye(4)).max() < _SAME for matrix in matrices]
    here = [each.frame_of_reference == own for each in sets]
    order = sorted(range(len(sets)), key=lambda n: (not (stays[n] and here[n]), not stays[n]))
    first = order[0]
    if stays[first]:
        return first
    return here.index(True) if here.count(True) == 1 else None


def _deformable(data: Any, name: str, moving: ImageSet | None) -> StoredRegistration:
    items = data.DeformableRegistrationSequence
    sets = [images_of(item, "SourceFrameOfReferenceUID") for item in items]
    moves = [n for n, item in enumerate(items) if _parts(item)]
    chosen = _chosen(moves, sets, moving, name)
    rest = referenced_instances(data) - frozenset().union(*(sets[n].instances for n in moves))
    fixed = ImageSet(str(data.get("FrameOfReferenceUID") or ""), rest)
    return StoredRegistration(_source_from_registered(items[chosen], name), fixed, sets[chosen])


def _parts(item: Any) -> list[str]:
    names = (
        "PreDeformationMatrixRegistrationSequence",
        "DeformableRegistrationGridSequence",
        "PostDeformationMatrixRegistrationSequence",
    )
    return [part for part in names if item.get(part)]


def _source_from_registered(item: Any, name: str) -> Transform:
    """Post · (Pre · x + displacement(x)), as a chain (PS3.3 C.20.3.1.1).

    The grid lies in the registered space. Seen from behind the first matrix, it lies where that
    matrix puts it.
    """
    chain: list[Transform] = []
    before = np.eye(4)
    if pre := item.get("PreDeformationMatrixRegistrationSequence"):
        before = _single_matrix(pre[0], name)
        chain.append(Affine(before))
    if grids := item.get("DeformableRegistrationGridSequence"):
        field = field_of(grids[0], name)
        placed = Grid(field.grid.size, before @ field.grid.world_from_index)
        chain.append(DisplacementField(field.vectors_mm, placed))
    if post := item.get("PostDeformationMatrixRegistrationSequence"):
        chain.append(Affine(_single_matrix(post[0], name)))
    return chain[0] if len(chain) == 1 else Chain(tuple(chain))


def field_of(grid: Any, name: str) -> DisplacementField:
    """The displacements of one item of the grid sequence.

    Raises FileError when there are not as many as declared, or where some are undefined (NaN).
    """
    i, j, k = (int(n) for n in grid.GridDimensions)
    vectors = np.frombuffer(grid.VectorGridData, "<f4").astype(np.float64)
    if min(i, j, k) < 1 or vectors.size != 3 * i * j * k:
        raise FileError(
            f"{name} declares a grid of {i} x {j} x {k} vectors but holds {vectors.size // 3}; "
            "export the registration again."
        )
    if not np.isfinite(vectors).all():
        raise FileError(
            f"{name} leaves the transform undefined at some places of its grid; export the "
            "registration for the whole image."
        )
    cosines = np.array(grid.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    axes = np.stack([*cosines, np.cross(*cosines)], axis=1)
    matrix = np.eye(4)
    matrix[:3, :3] = axes * np.array(grid.GridResolution, dtype=np.float64)
    matrix[:3, 3] = np.array(grid.ImagePositionPatient, dtype=np.float64)
    vectors = vectors.reshape(k, j, i, 3).transpose(3, 0, 1, 2)
    return DisplacementField(vectors, Grid((i, j, k), matrix))


def _single_matrix(item: Any, name: str) -> np.ndarray:
    """That of a matrix registration, which a deformable one does not wrap in a sequence."""
    from pydicom.dataset import Dataset

    if item.get("MatrixSequence"):
        return matrix_of(item, name)
    wrapped = Dataset()
    wrapped.MatrixSequence = [item]
    return matrix_of(wrapped, name)


def _chosen(numbers: list[int], sets: list[ImageSet], moving: ImageSet | None, name: str) -> int:
    """Which of the items is meant."""
    found = [n for n in numbers if moving is None or sets[n].is_same(moving)]
    if len(found) == 1:
        return found[0]
    if not numbers:
        raise FileError(f"{name} registers no image; export the registration again.")
    raise FileError(
        f"{name} registers {len(numbers)} sets of images, of which "
        f"{'none' if not found else 'several'} can be the moving one; give the registration of "
        "two images."
    )
