"""Series that are sent by C-STORE, registered by rule, and sent on."""

from __future__ import annotations

import logging
import multiprocessing
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian, JPEGLSLossless, RLELossless, generate_uid

pytest.importorskip("pynetdicom")

from dimse_peers import (
    CAMERA,
    a_destination,
    a_photograph,
    a_volume_series,
    association,
    free_port,
    sent,
    until,
)

from retreg.cli import main
from retreg_server.dicom.peers import peers_from
from retreg_server.serving import intake
from retreg_server.serving.settings import Settings

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SENDERS = {
    "camera": {"title": CAMERA, "address": "127.0.0.0/8"},
    "elsewhere": {"title": "FAR", "address": "10.9.8.7"},
}
RULES = {
    "brain": {
        "destination": "pacs", "modality": "MR", "fixed": "*t1*", "moving": "*FLAIR*",
        "model": "auto-brain", "options": {"shift": 3.0},
    },
    "eye": {
        "destination": "pacs", "modality": "OP", "model": "auto-fundus",
        "store": ["series", "registration", "fiducials", "report"],
    },
    "bad": {
        "destination": "pacs", "modality": "MR", "fixed": "bad one", "moving": "bad two",
        "model": "auto-brain", "options": {"kind": "wrong"},
    },
    "points": {
        "destination": "pacs", "modality": "MR", "fixed": "points one", "moving": "points two",
        "model": "auto-brain", "store": ["fiducials"],
    },
    "nowhere": {"destination": "down", "modality": "MR", "fixed": "here", "moving": "there",
        "model": "auto-brain",
    },
}  # fmt: skip


@dataclass
class Site:
    """A server with C-STORE, where it sends to, and what its log says."""

    server: object
    port: int
    pacs: object
    down_port: int
    log: list[str]

    def wait_for(self, *words):
        """The line of the log that has these words, when it is there."""
        until(lambda: any(all(word in line for word in words) for line in self.log))
        return next(line for line in self.log if all(word in line for word in words))


class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def settings_for(pacs_port, down_port, **changes):
    destinations = {
        "pacs": {"title": "PACS", "host": "127.0.0.1", "port": pacs_port},
        "down": {"title": "DOWN", "host": "127.0.0.1", "port": down_port},
    }
    given = {
        "dicom_port": free_port(), "dicom_settle_s": 0.1, "dicom_retry_s": 0.05,
        "max_image_bytes": 1 << 20, "archive_idle_s": 3.0, "stop_grace_s": 1, **changes,
    }  # fmt: skip
    return Settings(peers=peers_from(SENDERS, destinations, RULES), reuse_results=False, **given)


@pytest.fixture(scope="module")
def a_site(start_server):
    pacs_port, down_port = free_port(), free_port()
    settings, lines = settings_for(pacs_port, down_port), Lines()
    root = logging.getLogger("retreg_server")
    root.addHandler(lines)
    before, _ = root.level, root.setLevel(logging.INFO)
    try:
        with a_destination(pacs_port) as pacs, start_server(settings) as server:
            until(lambda: any("C-STORE is accepted" in line for line in lines.lines))
            yield Site(server, settings.dicom_port, pacs, down_port, lines.lines)
    finally:
        root.removeHandler(lines)
        root.setLevel(before)


@pytest.fixture
def site(a_site):
    a_site.pacs.kept.clear()
    a_site.pacs.answers.clear()
    a_site.log.clear()
    return a_site


@pytest.fixture
def write_series(tmp_path, write_dicom):
    """A function that writes a series of slices of one study."""
    study = generate_uid()

    def write(description, seed=1, **attributes):
        folder = tmp_path / f"{description}-{seed}"
        return a_volume_series(folder, write_dicom, study, description, seed, **attributes)

    return write


def by_modality(site, modality):
    return [data for data in site.pacs.kept if data.Modality == modality]


def test_two_series_of_a_study_are_registered_and_sent_on(site, write_series):
    fixed, moving = write_series("Ax T1 pre", 1), write_series("sag flair", 2)
    assert sent(site.port, fixed, moving, write_series("localizer", 3)) == [0] * 15
    line = site.wait_for("objects sent to pacs")
    assert "rule brain: accept, 6 objects sent to pacs" in line
    first = dcmread(sorted(fixed.iterdir())[0])
    assert len(by_modality(site, "MR")) == 5
    assert len(by_modality(site, "REG")) == 1
    for data in site.pacs.kept:
        assert (data.StudyInstanceUID, data.PatientID) == (first.StudyInstanceUID, "P-1")
    assert by_modality(site, "MR")[0].FrameOfReferenceUID == first.FrameOfReferenceUID
    assert site.pacs.callers == {"RETREG"}
    request = site.server.model.requests[-1]
    assert request.options["shift"] == 3.0
    assert request.fixed.array.ravel()[0] == first.pixel_array.ravel()[0]


def test_each_eye_of_a_study_of_photographs_is_registered_on_its_own(site, tmp_path, write_dicom):
    study = generate_uid()
    files = [
        a_photograph(tmp_path / f"{side}{seed}.dcm", write_dicom, study, seed, side)
        for side in "RL"
        for seed in (1, 2)
    ]
    assert sent(site.port, *files) == [0] * 4
    until(lambda: sum("objects sent to pacs" in line for line in site.log) == 2)
    for side in "RL":
        eye = [data for data in by_modality(site, "OP") if data.ImageLaterality == side]
        assert len(eye) == 2, "the registered picture and the one that blinks"
    assert {data.Modality for data in site.pacs.kept} == {"OP", "REG", "FID", "SR", "OT"}


def test_no_pair_is_made_of_two_eyes(site, tmp_path, write_dicom):
    files = [
        a_photograph(tmp_path / f"{side}.dcm", write_dicom, "1.2.3.9", n + 1, side)
        for n, side in enumerate("RL")
    ]
    sent(site.port, *files)
    site.wait_for("no rule matches")
    assert site.pacs.kept == []


@pytest.mark.parametrize(
    "words",
    [{"title": "STRANGER"}, {"title": "FAR"}, {"called": "SOMEBODY"}, {"title": "camera"}],
    ids=["an unknown title", "a title of another address", "not our title", "small letters"],
)
def test_who_is_not_in_the_settings_is_refused(site, words):
    with association(site.port, **words) as made:
        assert made.is_rejected
    title = words.get("title", CAMERA)
    assert f"{title!r} at 127.0.0.1 was refused" in site.wait_for("refused")


def test_an_echo_is_answered(site):
    with association(site.port) as made:
        assert made.send_c_echo().Status == 0


def test_images_of_other_kinds_are_not_taken(site):
    with association(site.port, kinds=["1.2.840.10008.5.1.4.1.1.88.11"]) as made:
        assert [each.abstract_syntax for each in made.accepted_contexts] == ["1.2.840.10008.1.1"]


def cut_pixels(data):
    data.PixelData = data.PixelData[:-2]


def no_study(data):
    del data.StudyInstanceUID


def no_pixels(data):
    del data.PixelData


def no_rows(data):
    data.Rows = 0


@pytest.mark.parametrize("damage", [cut_pixels, no_study, no_pixels, no_rows])
def test_a_bad_object_is_refused_and_nothing_is_kept_of_it(site, write_series, damage):
    good, path = list(write_series("t1").iterdir())[:2]
    bad = dcmread(path)
    damage(bad)
    with association(site.port) as made:
        assert made.send_c_store(bad).Status == 0xC000
        assert made.send_c_store(good).Status == 0
    assert "(C000)" in site.wait_for("an object from CAMERA was refused")
    site.wait_for("(1 series, 1 files)")


def test_beside_a_bad_object_the_others_are_registered(site, write_series):
    fixed, moving = write_series("t1"), write_series("flair", 2)
    bad = dcmread(next(moving.iterdir()))
    bad.SOPInstanceUID = bad.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    cut_pixels(bad)
    with association(site.port) as made:
        assert made.send_c_store(bad).Status == 0xC000
        for folder in (fixed, moving):
            assert [made.send_c_store(path).Status for path in folder.iterdir()] == [0] * 5
    assert "(2 series, 10 files)" in site.wait_for("sent to pacs")


def bytes_sent(site, content, sop_class, instance, syntax=ImplicitVRLittleEndian):
    """Send a data set as it is in bytes; the status."""
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_STORE

    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, instance
    request.DataSet = BytesIO(content)
    with association(site.port, kinds=[sop_class], syntax=syntax) as made:
        context = next(c for c in made.accepted_contexts if c.abstract_syntax == sop_class)
        made._reactor_checkpoint.clear()
        made.dimse.send_msg(request, context.context_id)
        _, answer = made.dimse.get_msg(block=True)
        made._reactor_checkpoint.set()
        return answer.Status


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_cut_data_set_is_refused(site, write_series, share):
    from pynetdicom.dsutils import encode

    data = dcmread(next(write_series("t1").iterdir()))
    whole = encode(data, True, True)
    status = bytes_sent(
        site, whole[: int(share * len(whole))], data.SOPClassUID, data.SOPInstanceUID
    )
    assert 0xA700 <= status <= 0xCFFF
    assert not [line for line in site.log if "Study" in line]


@pytest.mark.parametrize("share", [0.2, 0.7, 0.98, 1.0])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless], ids=["RLE", "JPEG-LS"])
def test_a_compressed_object_is_taken_when_it_is_whole(site, write_series, syntax, share):
    from pynetdicom.dsutils import encode

    data = dcmread(next(write_series("t1").iterdir()))
    data.PixelRepresentation = 0
    data.compress(syntax)
    whole = encode(data, False, True)
    content = whole[: int(share * len(whole))]
    status = bytes_sent(site, content, data.SOPClassUID, data.SOPInstanceUID, syntax)
    assert status == (0 if share == 1.0 else 0xC000)
    if status == 0:
        site.wait_for("(1 series, 1 files)")


def test_an_object_that_is_another_than_was_said_is_refused(site, write_series):
    from pynetdicom.dsutils import encode

    data = dcmread(next(write_series("t1").iterdir()))
    whole = encode(data, True, True)
    assert bytes_sent(site, whole, data.SOPClassUID, generate_uid()) == 0xA900


def test_an_object_that_is_too_large_ends_the_association_and_nothing_else(site, write_series):
    first, second = list(write_series("t1").iterdir())[:2]
    data = dcmread(second)
    data.Rows = data.Columns = 1400
    data.PixelData = bytes(2 * 1400 * 1400)
    with association(site.port) as made:
        assert made.send_c_store(first).Status == 0
        assert made.send_c_store(data).get("Status") is None
        until(lambda: made.is_aborted or not made.is_established)
    site.wait_for("(1 series, 1 files) is dropped: no rule")
    test_an_echo_is_answered(site)


def test_who_sends_without_an_association_is_cut_off(site):
    """A request of a megabyte, where a few kB are usual."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=5) as plain:
        def flood():
            for _ in range(60):
                plain.sendall(bytes(1 << 14))
                time.sleep(0.001)

        plain.sendall(struct.pack(">BBL", 1, 0, 1_000_000))
        with pytest.raises(OSError, match=r"reset|Broken pipe|aborted"):
            flood()
    test_an_echo_is_answered(site)


def test_a_study_with_one_series_is_dropped_with_one_line(site, write_series):
    sent(site.port, write_series("Ax t1"))
    line = site.wait_for("dropped")
    assert "from CAMERA (1 series, 5 files) is dropped: no rule matches" in line
    assert len([line for line in site.log if "(1 series, 5 files)" in line]) == 1


def test_a_study_is_not_complete_while_its_association_is_open(site, write_series):
    fixed, moving = write_series("t1"), write_series("flair", 2)
    with association(site.port) as made:
        for path in fixed.iterdir():
            assert made.send_c_store(path).Status == 0
        time.sleep(0.3)
        assert sent(site.port, moving) == [0] * 5
        time.sleep(0.3)
        assert not [line for line in site.log if "Study" in line]
    assert "(2 series, 10 files)" in site.wait_for("sent to pacs")


def test_what_failed_is_not_sent(site, write_series):
    sent(site.port, write_series("bad one"), write_series("bad two", 2))
    line = site.wait_for("rule bad")
    assert "nothing is sent. The registration failed" in line
    assert site.pacs.kept == []


def test_only_what_the_rule_names_is_sent(site, write_series):
    sent(site.port, write_series("points one"), write_series("points two", 2))
    site.wait_for("rule points: accept, 1 objects sent to pacs")
    assert [data.Modality for data in site.pacs.kept] == ["FID"]


def test_a_destination_that_is_down_is_tried_three_times(site, write_series):
    sent(site.port, write_series("here"), write_series("there", 2))
    line = site.wait_for("rule nowhere: nothing is sent")
    assert "The destination down cannot be reached" in line
    assert sum("next attempt" in line for line in site.log) == 2


def test_a_destination_that_comes_back_gets_everything_once(site, write_series):
    site.pacs.answers[:] = [0, 0, 0xA700]
    sent(site.port, write_series("t1"), write_series("flair", 2))
    site.wait_for("accept, 6 objects sent to pacs")
    assert sum("has taken 2 of 6" in line for line in site.log) == 1
    uids = [data.SOPInstanceUID for data in site.pacs.kept]
    assert len(uids) == len(set(uids)) == 6
    assert len({data.SeriesInstanceUID for data in site.pacs.kept}) == 2


def test_a_destination_that_rejects_us_is_told_apart(site, write_series):
    with a_destination(site.down_port, title="ANOTHER"):
        sent(site.port, write_series("here"), write_series("there", 2))
        line = site.wait_for("rule nowhere: nothing is sent")
    assert "The destination down rejects the association" in line


def test_the_log_has_nothing_of_the_patient(site, write_series):
    names = {"PatientName": "Secret^Name", "PatientID": "SECRET-7"}
    fixed, moving = write_series("t1", **names), write_series("flair secret", 2, **names)
    sent(site.port, fixed, moving)
    sent(site.port, write_series("t1", 3, **names))
    site.wait_for("sent to pacs")
    text = "\n".join(site.log).casefold()
    uids = {str(dcmread(path).SeriesInstanceUID) for path in (*fixed.iterdir(), *moving.iterdir())}
    assert not [word for word in ("secret", "flair", *uids) if word in text]


def test_the_same_object_sent_twice_counts_once(site, write_series):
    fixed, moving = write_series("t1"), write_series("flair", 2)
    sent(site.port, fixed, fixed, moving)
    assert "(2 series, 10 files)" in site.wait_for("sent to pacs")


@pytest.fixture
def another_site(start_server, caplog):
    """A function that starts a server of its own; the port for C-STORE."""
    from contextlib import contextmanager

    @contextmanager
    def started(**changes):
        settings = settings_for(free_port(), free_port(), **changes)
        with caplog.at_level("INFO"), start_server(settings):
            until(lambda: "C-STORE is accepted" in caplog.text)
            yield settings.dicom_port

    return started


def test_without_room_a_sender_is_told_and_so_is_what_waits_when_the_server_stops(
    another_site, write_series, caplog
):
    with another_site(image_store_bytes=5000, dicom_settle_s=60.0) as port:
        statuses = sent(port, write_series("t1"))
        kept = statuses.count(0)
        assert 0 < kept < 5
        assert statuses == [0] * kept + [0xA700] * (5 - kept)
        assert "there is no room for an object from CAMERA" in caplog.text
    assert f"(1 series, {kept} files) is dropped, as the server stops" in caplog.text
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=2)


def test_the_process_that_listens_is_replaced_when_it_dies(site, write_series):
    if not Path("/proc/net/tcp").exists():
        pytest.skip("only Linux tells which process listens")
    fixed, moving = write_series("t1"), write_series("flair", 2)
    with association(site.port) as made:
        assert [made.send_c_store(path).Status for path in fixed.iterdir()] == [0] * 5
        listener(site.port).kill()
        site.wait_for("C-STORE is accepted")
    assert sent(site.port, moving)[:1] == [0]
    assert "nothing is sent" not in site.wait_for("Study")


def listener(port):
    """The child that listens on a port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inode = next(row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A")
    for child in multiprocessing.active_children():
        for each in Path(f"/proc/{child.pid}/fd").iterdir():
            with suppress(OSError):
                if each.readlink().name == f"socket:[{inode}]":
                    return child
    raise AssertionError("no child listens there")


def test_a_port_that_is_taken_is_told_at_the_start(site, tmp_path, capsys):
    text = (EXAMPLES / "retreg-dicom.toml").read_text().replace("0.0.0.0", "127.0.0.1")
    (tmp_path / "retreg.toml").write_text(text)
    command = ["serve", "--port", "0", "--config", str(tmp_path / "retreg.toml")]
    assert main([*command, "--dicom-port", str(site.port)]) == 2
    said = capsys.readouterr().err
    assert f"127.0.0.1 with the port {site.port} cannot be used for DICOM" in said


def test_without_the_package_the_server_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(intake, "find_spec", lambda _: None)
    command = ["serve", "--port", "0", "--config", str(EXAMPLES / "retreg-dicom.toml")]
    assert main(command) == 2
    assert "pip install '.[dimse]'" in capsys.readouterr().err


def test_a_study_waits_while_the_server_is_busy_but_not_for_ever(
    another_site, write_series, caplog, monkeypatch
):
    monkeypatch.setattr(intake, "BUSY_PAUSE_S", 0.05)
    with another_site(queue_size=0, dicom_keep_s=1.0) as port:
        sent(port, write_series("t1"), write_series("flair", 2))
        until(lambda: "too busy for too long" in caplog.text)
