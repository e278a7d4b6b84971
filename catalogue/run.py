"""Draws the rows of a plan by workers, which may come and go. Only here is anything written, so that nothing is there twice."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import ray
from comfy_answers import ServerGone, printable
from ray.exceptions import RayError, RayTaskError
from tqdm import tqdm

from .plan import Plan
from .results import Results
from .rows import Row, changed
from .server import NoStart, Start
from .worker import Drawn, Job, Slot, Worker

MOST_STARTS = 3  # in a row that fail, until a worker's own server is given up
MOST_ALONE = 900  # seconds without any worker, when a cluster has lost the machines for them


@dataclass(frozen=True)
class Settings:
    """workers: addresses of servers, and how to start one, for each worker. gpus: that each started one gets
    patience: seconds for which no server may answer. seconds: that one row may take
    """

    workers: list[str | Start]
    gpus: float = 0
    headers: dict[str, str] = field(default_factory=dict)
    retries: int = 2
    patience: float = 120
    seconds: float = 3600


class _Member:
    """A worker as it is seen from here: it connects, it is free, or it has a row."""

    def __init__(self, number: int, server: str | Start, settings: Settings):
        self.number, self.server, self.settings = number, server, settings
        self.place, self.failures = server if isinstance(server, str) else f"worker {number + 1}", 0
        self.row: Row | None = None
        self.begin()

    def begin(self):
        """With an actor of its own: the one before is gone, or was never there."""
        started = isinstance(self.server, Start)
        self.actor = Worker.options(
            num_cpus=1 if started else 0, num_gpus=self.settings.gpus if started else 0, scheduling_strategy="SPREAD",
        ).remote(self.server, self.settings.headers, self.settings.patience)
        self.connect()

    def connect(self):
        self.sent: set[str] = set()
        self.free, self.row, self.work = False, None, self.actor.connect.remote()

    def draw(self, row: Row, job: Job):
        self.free, self.row, self.begun, self.work = False, row, time.monotonic(), self.actor.draw.remote(job)


class Run:
    """rows: those that are missing, of so many in all"""

    def __init__(self, workflow: dict, rows: list[Row], total: int, results: Results, settings: Settings):
        self.workflow, self.results, self.settings = workflow, results, settings
        self.members = [_Member(i, server, settings) for i, server in enumerate(settings.workers)]
        self.plan = Plan(rows, self.members)
        self.tries = dict.fromkeys((row.key for row in rows), 0)
        self.alone = time.monotonic()  # since when no worker has a server
        self.bar = tqdm(
            total=total, initial=total - len(rows), unit="row", mininterval=0.2 if sys.stderr.isatty() else 30, dynamic_ncols=True
        )

    def __call__(self):
        """Until every row is drawn or has failed, or no server is left.

        raises: NoStart, ComfyError where none is left
        """
        try:
            while len(self.plan) or any(member.row for member in self.members):
                for member in self.members:
                    while member.free and (row := self.plan.next(member)):
                        self._hand(row, member)
                working = {member.work: member for member in self.members if not member.free}
                ready, _ = ray.wait([*working], timeout=1) if working else ((), ())
                for work in ready:
                    self._take(working[work])
                self._require_some()
        finally:
            self.bar.close()

    def stop(self):
        """What is being drawn is taken back from the servers; those that were started end."""
        drawing = [member.work for member in self.members if member.row]
        with suppress(RayError):
            for work in drawing:
                ray.cancel(work)
            if drawing:
                ray.wait(drawing, num_returns=len(drawing), timeout=5)
            ends = [member.actor.stop.remote() for member in self.members]
            if ends:
                ray.wait(ends, num_returns=len(ends), timeout=15)

    def _hand(self, row: Row, member: _Member):
        try:
            workflow, slots = changed(self.workflow, row)
            pictures, places = {}, []
            ids = {id(node["inputs"]): name for name, node in workflow.items()}
            for slot in slots:
                picture = slot.picture
                named = f"{picture.digest} {picture.name}"
                places.append(Slot(ids[id(slot.inputs)], slot.name, named))
                data = None if named in member.sent else str(picture.source)
                if data and isinstance(picture.source, Path):
                    data = picture.source.read_bytes()
                    if hashlib.sha256(data).hexdigest() != picture.digest:
                        raise ValueError(f"'{picture.source}' has changed since the run began. Run it again")
                pictures[named] = picture.name, data
        except (OSError, ValueError) as error:
            return self._failed(row, str(error), worker="")
        member.sent |= pictures.keys()
        member.draw(row, Job(workflow, tuple(places), pictures, self.settings.seconds))

    def _take(self, member: _Member):
        """What a worker has done."""
        row, member.row = member.row, None
        try:
            answer = ray.get(member.work)
        except RayTaskError as error:
            cause = error.cause
            if row is None:
                return self._does_not_connect(member, cause, member.connect)
            answer = Drawn(error=f"{type(cause).__name__}: {cause}", gone=True)
        except RayError as error:  # the worker is dead, or its machine
            with suppress(RayError):
                ray.kill(member.actor)
            if row:
                self._again(row, member, f"The worker died: {type(error).__name__}.")
            return self._does_not_connect(member, NoStart(f"The worker died: {_first_line(error)}"), member.begin)
        if row is None:
            member.place, member.failures, member.free = answer, 0, True
        elif answer.error:
            self._again(row, member, answer.error)
            member.sent.clear()
            if answer.gone:
                member.connect()
            else:
                member.free = True
        else:
            member.free = True
            self.tries[row.key] += 1
            self.results.keep(
                row, answer.files, seconds=round(time.monotonic() - member.begun, 3), server_seconds=answer.server_seconds,
                encodings=answer.encodings, worker=member.place, tries=self.tries[row.key],
            )
            self.bar.update()

    def _again(self, row: Row, member: _Member, error: str):
        self.tries[row.key] += 1
        if self.tries[row.key] <= self.settings.retries:
            self.plan.again(row, member)
        else:
            self._failed(row, error, worker=member.place)

    def _failed(self, row: Row, error: str, worker: str):
        self.results.fail(row, worker=worker, tries=self.tries[row.key], error=printable(error))
        self.bar.set_postfix(failed=len(self.results.failed))
        self.bar.update()

    def _does_not_connect(self, member: _Member, cause: Exception, again: Callable[[], None]):
        member.failures += 1
        if not isinstance(cause, ServerGone) and (member.failures > MOST_STARTS or not isinstance(cause, NoStart)):
            self.plan.leave(member)
            self.members.remove(member)
            self.bar.write(printable(f"{member.place} is given up: {cause}"), file=sys.stderr)
            if not self.members:
                raise cause
            return
        if member.failures == 1:
            self.bar.write(printable(f"{member.place}: {cause}"), file=sys.stderr)
        again()

    def _require_some(self):
        """A server may be slow to come, but one that did not for as long as our patience lasts counts as gone."""
        if any(member.free or member.row for member in self.members):
            self.alone = time.monotonic()
        lost = [member for member in self.members if member.failures and isinstance(member.server, str)]
        if len(lost) == len(self.members) or time.monotonic() - self.alone > MOST_ALONE:
            raise ServerGone("There is no server left to draw the rest.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
