"""Jobs: work on another thread, news on this one."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest

from retreg.errors import Cancelled, RetRegError, ServerError


@pytest.fixture
def jobs(slicer):
    assert slicer
    from RetRegLib import jobs

    return jobs


class News:
    """What a job told, and on which thread."""

    def __init__(self) -> None:
        self.told: list[tuple] = []
        self.threads: set[threading.Thread] = set()

    def hears(self, kind: str):
        def hear(*what) -> None:
            self.told.append((kind, *what))
            self.threads.add(threading.current_thread())

        return hear

    def job(self, jobs, work, **more):
        kinds = ("progress", "done", "error", "cancelled")
        return jobs.Job(work, **{f"on_{kind}": self.hears(kind) for kind in kinds}, **more)

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, *_ in self.told]


def poll_until_ended(job, limit_s: float = 10.0) -> None:
    until = time.monotonic() + limit_s
    while not job.ended:
        assert time.monotonic() < until, "the job did not end"
        time.sleep(0.005)
        job.poll()


def test_everything_is_delivered_on_the_thread_that_polls(jobs):
    news, workers = News(), []

    def work(tell):
        workers.append(threading.current_thread())
        tell("one", 0.1)
        return 42

    job = news.job(jobs, work)
    job.start()
    poll_until_ended(job)
    assert news.told == [("progress", "one", 0.1), ("done", 42)]
    assert news.threads == {threading.current_thread()}
    assert workers[0] is not threading.current_thread()


def test_nothing_is_delivered_before_it_is_polled(jobs):
    news, finished = News(), threading.Event()

    def work(tell):
        tell("one", 0.1)
        finished.set()

    job = news.job(jobs, work)
    job.start()
    assert finished.wait(5)
    assert news.told == []
    assert not job.ended


def test_of_several_reports_between_two_polls_the_last_is_delivered(jobs):
    news, told, go_on = News(), threading.Event(), threading.Event()

    def work(tell):
        for step in range(10):
            tell("working", step / 10)
        told.set()
        go_on.wait(5)

    job = news.job(jobs, work)
    job.start()
    assert told.wait(5)
    job.poll()
    assert news.told == [("progress", "working", 0.9)]
    go_on.set()
    poll_until_ended(job)


def test_an_error_on_purpose_arrives_as_it_is(jobs):
    error = ServerError("The server is gone; start it.")
    news = News()

    def work(_):
        raise error

    job = news.job(jobs, work)
    job.start()
    poll_until_ended(job)
    assert news.told == [("error", error)]


def test_an_unforeseen_error_becomes_a_sentence_without_the_data_in_it(jobs):
    news = News()

    def work(_):
        raise KeyError("name of a patient")

    job = news.job(jobs, work)
    job.start()
    poll_until_ended(job)
    [(kind, error)] = news.told
    assert kind == "error"
    assert isinstance(error, RetRegError)
    assert "KeyError at test_jobs.py" in str(error)
    assert "patient" not in str(error)


def test_memory_that_does_not_suffice_is_told_as_such(jobs):
    assert "memory" in str(jobs.in_a_sentence(MemoryError()))


def test_an_error_that_nobody_listens_for_is_raised_by_poll(jobs):
    def work(_):
        raise ServerError("Gone.")

    job = jobs.Job(work)
    job.start()
    with pytest.raises(ServerError, match="Gone"):
        poll_until_ended(job)
    assert job.ended
    job.poll()  # once is enough


def test_a_job_that_hangs_is_idle_at_once_when_cancelled_and_says_nothing_later(jobs):
    news, release, left = News(), threading.Event(), threading.Event()

    def work(_):
        release.wait(10)
        left.set()
        return "too late"

    job = news.job(jobs, work)
    job.start()
    begun = time.monotonic()
    job.cancel()
    assert time.monotonic() - begun < 0.1
    assert job.ended
    assert news.kinds == ["cancelled"]
    release.set()
    assert left.wait(5)
    time.sleep(0.05)
    job.poll()
    job.cancel()
    assert news.kinds == ["cancelled"]


def test_the_work_of_a_cancelled_job_ends_at_its_next_report(jobs):
    ends, started = [], threading.Event()

    def work(tell):
        try:
            while True:
                tell("working", 0.5)
                started.set()
                time.sleep(0.01)
        except Cancelled as error:
            ends.append(error)
            raise

    job = News().job(jobs, work)
    job.start()
    assert started.wait(5)
    job.cancel()
    until = time.monotonic() + 5
    while not ends and time.monotonic() < until:
        time.sleep(0.01)
    assert ends


def test_abort_runs_on_a_thread_of_its_own_and_may_fail(jobs):
    threads, aborted = [], threading.Event()

    def abort():
        threads.append(threading.current_thread())
        aborted.set()
        raise ServerError("The server is gone.")

    job = News().job(jobs, lambda _: time.sleep(0.2), abort=abort)
    job.start()
    job.cancel()
    assert aborted.wait(5)
    assert threads[0] is not threading.current_thread()


def test_a_job_may_be_cancelled_from_its_own_progress(jobs):
    news = News()

    def work(tell):
        while True:
            tell("working", 0.5)
            time.sleep(0.01)

    job = jobs.Job(work, lambda *_: job.cancel(), on_cancelled=news.hears("cancelled"))
    job.start()
    poll_until_ended(job)
    assert news.kinds == ["cancelled"]


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_job_that_has_ended_keeps_nothing_of_what_it_was_given(jobs, is_cancelled):
    class Images:
        """Large."""

    images = Images()
    gone = weakref.ref(images)

    def work(tell, images=images):
        tell("working", 0.5)
        return id(images)

    job = jobs.Job(work, on_done=lambda _, images=images: images, abort=lambda i=images: i)
    del images
    job.start()
    if is_cancelled:
        job.cancel()
    else:
        poll_until_ended(job)
    del work
    until = time.monotonic() + 5
    while gone() is not None and time.monotonic() < until:
        gc.collect()
        time.sleep(0.02)
    assert gone() is None
    assert job.ended


def test_progress_of_one_of_many_is_told_as_progress_of_all(jobs):
    told = []
    tell = jobs.counted(lambda *what: told.append(what), "pair", 3, 4)
    tell("sending", 0.5)
    assert told == [("pair 3 of 4: sending", 0.625)]
    assert jobs.counted(None, "pair", 1, 2) is None
