"""A real archive: Debian's Orthanc with its DICOMweb plugin, started on this machine."""

from __future__ import annotations

import numpy as np
import pytest
from made_up_dicom import OBLIQUE, a_result, a_spline, an_affine
from orthanc import is_installed, running_orthanc

from retreg.dicom.objects import KINDS, Registered
from retreg.dicom.source import source_of
from retreg.errors import ServerError
from retreg.files import read_image
from retreg.files.dicom_fiducials import read_fiducials
from retreg.files.dicom_registration import read_registration
from retreg.resample import resample
from retreg_server.dicom.archives import Archive, SeriesName
from retreg_server.dicom.careful_session import Bounds
from retreg_server.dicom.dicomweb import fetch_series, store_objects
from retreg_server.dicom.object_folder import all_objects

BOUNDS = Bounds(50_000_000, 10.0, 60.0)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    """The archive, as settings would name it."""
    if not is_installed():
        pytest.skip("Orthanc with its DICOMweb plugin is not installed")
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as archive:
        yield archive


def put(archive, folder):
    """Store a series as another system would; its name."""
    import pydicom

    objects = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    store_objects(archive, objects, BOUNDS)
    return SeriesName(str(objects[0].StudyInstanceUID), str(objects[0].SeriesInstanceUID))


def got(archive, wanted, folder):
    folder.mkdir()
    for n, data in enumerate(fetch_series(archive, wanted, BOUNDS)):
        data.save_as(folder / f"{n}.dcm")
    return folder


@pytest.mark.parametrize("kind", ["affine", "deformable"])
def test_what_goes_through_an_archive_comes_back_the_same(orthanc, a_scan, tmp_path, kind):
    names = [put(orthanc, a_scan("fixed", OBLIQUE)), put(orthanc, a_scan("moving"))]
    folders = [
        got(orthanc, name, tmp_path / role)
        for name, role in zip(names, ("in-fixed", "in-moving"), strict=True)
    ]
    images, sources = [read_image(f) for f in folders], [source_of(f) for f in folders]
    transform = an_affine() if kind == "affine" else a_spline(images[0].grid)
    made = Registered(*images, tuple(sources), a_result(transform, images[0].grid), "0.1")
    objects = [data for _, data in all_objects(made, KINDS)]
    stored = store_objects(orthanc, objects, BOUNDS)
    kinds = {str(data.SeriesInstanceUID): str(data.Modality) for data in objects}
    back = {
        kinds[series]: got(orthanc, SeriesName("1.2.3", series), tmp_path / f"back-{n}")
        for n, series in enumerate(stored)
    }
    points = images[0].grid.lattice()
    registration = read_registration(next(back["REG"].iterdir()))
    atol = 1e-6 if kind == "affine" else 0.01
    np.testing.assert_allclose(registration.transform(points), transform(points), atol=atol)
    assert registration.fixed.is_same(sources[0].images)
    assert registration.moving.is_same(sources[1].images)
    fixed, moving = read_fiducials(next(back["FID"].iterdir()))
    np.testing.assert_allclose(moving.points.points, transform(fixed.points.points), atol=1e-6)
    expected = resample(images[1], transform, images[0].grid)
    np.testing.assert_array_equal(read_image(back["MR"]).array, expected.array)
    assert len(list(back["SR"].iterdir())) == 1


def test_wrong_credentials_and_unknown_series_are_told(orthanc, a_scan, tmp_path):
    name = put(orthanc, a_scan("fixed"))
    wrong = Archive("orthanc", orthanc.url, "retreg", "wrong")
    with pytest.raises(ServerError, match="refuses the credentials"):
        got(wrong, name, tmp_path / "a")
    with pytest.raises(ServerError, match="has no such series"):
        got(orthanc, SeriesName(name.study, "1.2.3.4.5.6"), tmp_path / "b")
