"""Archives: what is fetched and stored, and what an archive may not do."""

from __future__ import annotations

import numpy as np
import pytest
from fake_archive import PASSWORD, USER, fake_archive
from made_up_dicom import a_result, an_affine

from retreg import wire
from retreg.dicom.objects import KINDS, Registered
from retreg.dicom.source import source_of
from retreg.errors import FileError, GeometryError, InputError, ServerError
from retreg.files import read_image
from retreg.progress import no_progress
from retreg_server.dicom.archives import Archive, SeriesName, archive_named, archives_from
from retreg_server.dicom.careful_session import Bounds, careful_session
from retreg_server.dicom.dicomweb import fetched_image, store_objects
from retreg_server.dicom.object_folder import all_objects
from retreg_server.serving.workers.archive_worker import ArchiveWorker
from retreg_server.serving.workers.messages import Message, SharedBuffer, SharedImage

BOUNDS = Bounds(10_000_000, 2.0, 20.0)


@pytest.fixture
def archive():
    with fake_archive() as running:
        yield running


@pytest.fixture
def known(archive):
    """The archive as the settings name it."""
    return Archive("hospital", archive.url, USER, PASSWORD)


@pytest.fixture
def scan(archive, a_scan):
    return SeriesName(*archive.put_folder(a_scan("fixed")))


def fetched(known, wanted, bounds=BOUNDS):
    return fetched_image(known, wanted, bounds)[0]


def test_a_series_arrives_as_it_is(known, scan, tmp_path):
    image = fetched(known, scan)
    expected = read_image(tmp_path / "fixed")
    np.testing.assert_array_equal(image.array, expected.array)
    np.testing.assert_array_equal(image.grid.world_from_index, expected.grid.world_from_index)


def test_a_multi_frame_object_arrives_too(archive, known, enhanced_scan):
    wanted = SeriesName(*archive.put_folder(enhanced_scan))
    image = fetched(known, wanted)
    np.testing.assert_array_equal(image.array, read_image(enhanced_scan).array)


def test_a_deflated_instance_is_refused(archive, known, a_scan):
    import pydicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    folder = a_scan("fixed")
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        data.save_as(path)
    with pytest.raises(FileError, match="is a deflated DICOM file, which is not accepted"):
        fetched(known, SeriesName(*archive.put_folder(folder)))


def test_a_source_knows_the_instances_and_their_place_but_not_their_pixels(known, scan, tmp_path):
    image, source = fetched_image(known, scan, BOUNDS)
    expected = source_of(tmp_path / "fixed")
    assert source.images == expected.images
    for grid in (source.grid(), image.grid):
        np.testing.assert_array_equal(grid.world_from_index, expected.grid().world_from_index)
    assert all("PixelData" not in header and header.buffer is None for header in source.headers)


@pytest.mark.parametrize("kinds", [KINDS, ("series",), ("registration", "fiducials"), ("report",)])
def test_what_is_asked_for_is_stored_and_nothing_else(archive, known, a_scan, kinds):
    paths = a_scan("fixed"), a_scan("moving")
    images = [read_image(path) for path in paths]
    result = a_result(an_affine(), images[0].grid)
    made = Registered(*images, tuple(map(source_of, paths)), result, "0.1")
    objects = [data for _, data in all_objects(made, kinds)]
    stored = store_objects(known, objects, BOUNDS)
    counts = {"series": 5, "registration": 1, "fiducials": 1, "report": 1}
    assert sorted(map(len, stored.values())) == sorted(counts[kind] for kind in kinds)
    assert {(key[1], key[2]) for key in archive.kept} == {
        (series, uid) for series, uids in stored.items() for uid in uids
    }


def test_of_no_objects_the_archive_hears_nothing(archive, known):
    assert store_objects(known, iter(()), BOUNDS) == {}
    assert archive.asked == []


def test_what_fails_while_objects_are_made_is_told_and_nothing_is_kept(archive, known, a_scan):
    import pydicom

    def objects():
        yield from map(pydicom.dcmread, a_scan("fixed").iterdir())
        raise GeometryError("The grid is no grid.")

    with pytest.raises(GeometryError, match="The grid is no grid"):
        store_objects(known, objects(), BOUNDS)
    assert archive.kept == {}


@pytest.mark.parametrize("mood", ["redirect", "error", "stall"])
def test_an_archive_that_does_not_take_objects_is_told_in_a_sentence(archive, known, a_scan, mood):
    import pydicom

    objects = [pydicom.dcmread(path) for path in a_scan("fixed").iterdir()]
    archive.mood = mood
    with pytest.raises(ServerError, match="hospital") as caught:
        store_objects(known, objects, Bounds(10_000_000, 0.5, 20.0))
    assert "secret" not in str(caught.value)
    assert archive.kept == {}


@pytest.mark.parametrize(
    ("mood", "told"),
    [
        ("redirect", "redirects to another address"),
        ("error", "answered with the error 500"),
        ("garbage", "is no DICOM"),
        ("stall", "does not answer in time|cannot be reached"),
        ("broken", "broke off|is no DICOM"),
    ],
)
def test_an_archive_that_misbehaves_is_told_in_a_sentence(
    archive, known, scan, mood, told
):
    archive.mood = mood
    with pytest.raises(ServerError, match=told) as caught:
        fetched(known, scan, Bounds(10_000_000, 0.5, 20.0))
    assert "secret" not in str(caught.value)
    assert scan.series not in str(caught.value)
    assert len(archive.asked) == 1, "it is not asked again"


@pytest.mark.parametrize(("mood", "told"), [("gaps", "missing"), ("cut", "no DICOM image")])
def test_a_series_with_gaps_or_cut_instances_is_not_read(
    archive, known, scan, mood, told
):
    archive.mood = mood
    with pytest.raises((FileError, ServerError), match=told):
        fetched(known, scan)


def test_wrong_credentials_and_an_unknown_series_are_told(archive, known, scan):
    wrong = Archive("hospital", archive.url, USER, "wrong")
    with pytest.raises(ServerError, match="refuses the credentials"):
        fetched(wrong, scan)
    with pytest.raises(ServerError, match="has no such series"):
        fetched(known, SeriesName(scan.study, "1.2.3.4.5"))


def test_nobody_answers(scan):
    nowhere = Archive("hospital", "http://127.0.0.1:9/dicom-web")
    with pytest.raises(ServerError, match="cannot be reached"):
        fetched(nowhere, scan)


@pytest.mark.parametrize(
    ("bounds", "told"),
    [(Bounds(500, 2.0, 20.0), "more than is allowed"), (Bounds(10**7, 2.0, -1.0), "too slow")],
)
def test_size_and_time_are_bounded_while_it_streams(known, scan, bounds, told):
    with pytest.raises(ServerError, match=told):
        fetched(known, scan, bounds)


def test_an_address_of_another_host_is_never_asked(archive, known):
    session = careful_session(known, BOUNDS)
    for url in ("http://localhost:1/x", archive.url.replace("127.0.0.1", "localhost")):
        with pytest.raises(ServerError, match="another host"):
            session.get(url)
    assert archive.asked == []


def test_what_the_archive_says_it_kept_is_looked_at(archive, known, a_scan):
    import pydicom

    objects = [pydicom.dcmread(path) for path in a_scan("fixed").iterdir()]
    archive.mood = "counts nothing"
    assert sum(map(len, store_objects(known, objects, BOUNDS).values())) == 5
    archive.mood = "forgetful"
    with pytest.raises(ServerError, match="has kept only 4 of 5 objects"):
        store_objects(known, objects, BOUNDS)


@pytest.mark.parametrize("forgets", [False, True])
def test_a_series_that_was_forgotten_is_asked_for_again(archive, known, a_scan, forgets):
    bounds = {"received_bytes": 10_000_000, "idle_s": 2.0, "total_s": 20.0}
    entry = {"url": known.url, "user": USER, "password": PASSWORD}
    worker = ArchiveWorker({"hospital": entry}, "00" * 32, bounds, {}, "RETREG")
    series, images = [], []
    for role in ("fixed", "moving"):
        study, uid = archive.put_folder(a_scan(role))
        series.append({"task": "fetch", "archive": "hospital", "study": study, "series": uid,
                       "folder": role, "most_bytes": 10_000_000})  # fmt: skip
        answer = worker.answer(Message(series[-1]), no_progress)
        images.append(SharedImage.received(answer.head["header"], answer.buffers[0]))
    if forgets:
        worker._sources.clear()
    before = len(archive.asked)
    result = wire.dumps(wire.encode_result(a_result(an_affine(), images[0].image.grid)))
    head = {"task": "store", "archive": "hospital", "series": series, "kinds": ["registration"],
            "headers": [each.header for each in images], "most_bytes": 10_000_000}  # fmt: skip
    enclosed = (SharedBuffer.of(result), *(each.voxels for each in images))
    stored = worker.answer(Message(head, enclosed), no_progress).head["stored"]
    assert sum(map(len, stored.values())) == 1
    fetched_again = [path for kind, path in archive.asked[before:] if "instances" not in path]
    assert len(fetched_again) == (4 if forgets else 2), "both series, the store, and the look at it"


def test_archives_are_read_from_the_settings(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("a-password\n")
    table = {
        "open": {"url": "http://a:8042/dicom-web/"},
        "named": {"url": "https://b/x", "user": "me", "password_file": str(secret)},
        "token": {"url": "https://c", "token_file": str(secret)},
    }
    found = archives_from(table)
    assert found["open"] == Archive("open", "http://a:8042/dicom-web")
    assert found["named"] == Archive("named", "https://b/x", "me", "a-password")
    assert found["token"].token == "a-password"
    assert "a-password" not in repr(found)
    assert archive_named(found, "open") is found["open"]
    with pytest.raises(InputError, match="which know named, open, token"):
        archive_named(found, "other")
    for name in (None, "open"):
        with pytest.raises(InputError, match="The settings know no archive; add one"):
            archive_named({}, name)


@pytest.mark.parametrize(
    "table",
    [
        [],
        {"A name": {"url": "http://a"}},
        {"a": {}},
        {"a": {"url": "ftp://a"}},
        {"a": {"url": "http://me:secret@a"}},
        {"a": {"url": "http://a", "password": "secret"}},
        {"a": {"url": "http://a", "user": "me"}},
        {"a": {"url": "http://a", "token_file": "/nowhere/secret"}},
    ],
)
def test_archives_that_are_not_usable_are_refused_without_telling_secrets(table):
    with pytest.raises(InputError) as caught:
        archives_from(table)
    assert "me:secret" not in str(caught.value)
