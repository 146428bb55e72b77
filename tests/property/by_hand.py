"""What hands do to the files of a directory store, as steps of the machine."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
)
from tests.jobs import NOON, make_job
from tests.property.actors import Crash
from tests.property.known import ENDS, Known, known_job
from tests.property.machine import CHOSEN, PERSON, crashes, picked, picks
from tests.property.people import StoreMachine

from queuectl.clock import format_instant, later, parse_instant
from queuectl.document import encode_job
from queuectl.job import State
from queuectl.store.names import pending_name
from queuectl.store.scan import PendingScan


class DirectoryMachine(StoreMachine):
    """Drive a directory store, and change by hand what lies in it."""

    kind = "directory"
    _defaults = PendingScan.__init__.__defaults__

    @initialize(small=st.booleans())
    def keep_few_names(self, small: bool) -> None:
        """Let what a scan keeps be so little that it is used up, as a million names would."""
        PendingScan.__init__.__defaults__ = (3, 2) if small else self._defaults

    def teardown(self) -> None:
        """Leave all as it was."""
        PendingScan.__init__.__defaults__ = self._defaults
        super().teardown()

    def take_over(self) -> None:
        """Take over also what is written in documents whose names say something else."""
        super().take_over()
        for known in self._whole(State.PENDING):
            own_id = known.id.lstrip("+")
            document = json.loads(self._path(known).read_text())
            written_id = document.get("id", own_id)
            self.model.jobs[known.id] = replace(
                known,
                wanted=written_id if known.dropped or written_id != own_id else "",
                document=(document.get("priority", 5), parse_instant(document["run_at"])),
            )

    def _path(self, known: Known) -> Path:
        name = f"{known.id.lstrip('+')}.json"
        if known.state is State.PENDING and known.run_at is not None:
            name = pending_name(known.priority, known.run_at, known.id)
        return Path(self.place.location) / known.state / (known.parent or "") / name

    def _waiting_or_ended(self) -> list[Known]:
        return self.model.in_state(State.PENDING, State.BLOCKED, *ENDS)

    def _whole(self, *states: State) -> list[Known]:
        return [known for known in self.model.in_state(*states) if not known.torn]

    @precondition(lambda self: self._can_be_moved())
    @rule(pick=picks, to=st.sampled_from((State.PENDING, State.PENDING, *ENDS)))
    def move_by_hand(self, pick: int, to: State) -> None:
        """Move a job that does not run, as `mv dead/x.json pending/` does."""
        self.tick()
        known = picked(pick, self._can_be_moved())
        if known.state is to and to is not State.PENDING:
            return
        priority, run_at = known.document
        now = replace(known, state=to, parent=None, priority=priority, run_at=run_at)
        if to is State.PENDING:
            now = replace(now, id=f"+{known.id}", wanted=known.id, priority=5, run_at=None)
        os.rename(self._path(known), self._path(now))
        self.model.replace(known.id, now)

    def _can_be_moved(self) -> list[Known]:
        return [
            known
            for known in self._whole(State.PENDING, State.BLOCKED, *ENDS)
            if not known.dropped
            and known.wanted in ("", known.id)
            and f"+{known.id}" not in self.model.jobs
            and all(known.id != each.wanted for each in self.model.jobs.values() if each.dropped)
        ]

    @precondition(lambda self: len(self._waiting_or_ended()) > 3)
    @rule(pick=picks)
    def remove_by_hand(self, pick: int) -> None:
        """Remove a job that does not run."""
        self.tick()
        known = picked(pick, self._waiting_or_ended())
        self._path(known).unlink()
        self.model.replace(known.id, None)

    @precondition(lambda self: self._in_order())
    @rule(pick=picks, priority=st.integers(0, 9), delay=st.sampled_from((-5, 0, 7)))
    def rename_by_hand(self, pick: int, priority: int, delay: int) -> None:
        """Give a job another place in the order: the name decides."""
        self.tick()
        known = picked(pick, self._in_order())
        now = replace(known, priority=priority, run_at=later(self.now, delay))
        os.rename(self._path(known), self._path(now))
        self.model.replace(known.id, now)

    def _in_order(self) -> list[Known]:
        return [known for known in self._whole(State.PENDING) if not known.dropped]

    @precondition(lambda self: self._whole(State.PENDING, State.BLOCKED, *ENDS))
    @rule(pick=picks, how=st.sampled_from(("in place", "by rename", "touch")))
    def edit_by_hand(self, pick: int, how: str) -> None:
        """Edit the command of a job that does not run, or only touch its document."""
        self.tick()
        known = picked(pick, self._whole(State.PENDING, State.BLOCKED, *ENDS))
        if how == "touch":
            self._path(known).touch()
            return
        self.made += 1
        document = json.loads(self._path(known).read_text())
        document["command"] = f"run {self.made}"
        self._write(self._path(known), json.dumps(document), how == "in place")
        self.model.replace(known.id, replace(known, command=document["command"]))

    def _write(self, path: Path, text: str, in_place: bool) -> None:
        written = path if in_place else path.parent / f".{path.name}.swp"
        written.touch(0o600)
        written.write_text(text)
        written.rename(path)

    @rule(
        stem=st.sampled_from((*CHOSEN, "dropped")),
        wanted=st.sampled_from(("", "", *CHOSEN)),
        again=st.none() | picks,
        priority=st.none() | st.integers(0, 9),
        in_place=st.booleans(),
    )
    def drop_by_hand(
        self, stem: str, wanted: str, again: int | None, priority: int | None, in_place: bool
    ) -> None:
        """Drop a file into pending/, as a script does, maybe again under the same name."""
        self.tick()
        ended = self.model.in_state(*ENDS)
        if again is not None and ended:
            stem = picked(again, ended).id
        dropped = [known for known in self.model.jobs.values() if known.dropped]
        wanted = wanted or stem
        others = {known.wanted for known in dropped} | {known.id[1:] for known in dropped}
        if {stem, wanted} & others:
            return  # which one is adopted under the id is not said
        self.made += 1
        document: dict[str, Any] = {"command": f"run {self.made}", "max_retries": 2}
        document["run_at"] = format_instant(NOON)
        if wanted != stem:
            document["id"] = wanted
        if priority is not None:
            document["priority"] = priority
        known = Known(
            id=f"+{stem}",
            state=State.PENDING,
            command=document["command"],
            max_retries=2,
            document=(document.get("priority", 5), NOON),
            wanted=wanted,
        )
        self._write(self._path(known), json.dumps(document), in_place)
        self.model.jobs[known.id] = known

    @precondition(lambda self: any(known.dropped for known in self._can_be_cancelled()))
    @rule(pick=picks, crash=crashes)
    def cancel_dropped(self, pick: int, crash: Crash | None) -> None:
        """Cancel what was dropped, before it is adopted; its name may be an older job's."""
        self.tick()
        known = picked(pick, [each for each in self._can_be_cancelled() if each.dropped])
        self._cancel([known.id[1:]], crash)

    @rule(priority=st.integers(0, 9), delay=st.sampled_from((-5, 0, 7)), other=st.booleans())
    def place_by_hand(self, priority: int, delay: int, other: bool) -> None:
        """Put a document into pending/ under a whole name, which decides."""
        self.tick()
        self.made += 1
        job = make_job(f"placed{self.made}", command=f"run {self.made}")
        known = replace(
            known_job(job),
            priority=priority,
            run_at=later(self.now, delay),
            wanted="another" if other else "",
        )
        text = encode_job(job._replace(id=known.wanted or known.id)).decode()
        self._write(self._path(known), text, False)
        self.model.jobs[known.id] = known

    @precondition(lambda self: self._whole(State.PENDING))
    @rule(pick=picks)
    def tear_by_hand(self, pick: int) -> None:
        """Leave half a document in pending/, long ago."""
        self.tick()
        known = picked(pick, self._whole(State.PENDING))
        path = self._path(known)
        text = path.read_text()
        half = path.parent / ".half"
        half.touch(0o600)
        half.write_text(text[: len(text) // 2])
        long_ago = time.time() - 60
        os.utime(half, (long_ago, long_ago))
        half.rename(path)
        torn = Known(
            id=known.id,
            state=State.PENDING,
            priority=known.priority,
            run_at=known.run_at,
            torn=True,
        )
        self.model.replace(known.id, torn)

    @rule(repair=st.booleans(), crash=crashes)
    def doctor(self, repair: bool, crash: Crash | None) -> None:
        """Examine the store; once it is repaired, nothing is wrong with it."""
        self.tick()
        if repair:
            for known in self.model.in_state(State.PENDING):
                if known.torn and not known.dropped:
                    self.model.set_aside(known.id)
                elif known.wanted and not known.dropped:
                    document = (known.priority, known.run_at)
                    self.model.replace(known.id, replace(known, wanted="", document=document))
            self.model.recover(self.held(), self.now)
            self.model.cancel_orphans()
        self.tell(PERSON, "doctor", repair, crash=crash)
        if repair and not self.died:
            assert self.tell(PERSON, "doctor", False) == []
