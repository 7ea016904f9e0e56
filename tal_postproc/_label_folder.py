"""Labels on disk: the bank of the last refresh, and the parts of one that is running, perhaps in several processes.

    labels.npz                      the bank, with a note of epoch and settings
    epoch-000200/part-000000-*.npz  some videos of the refresh at 200, made by rank 0
    epoch-000200/start.json         a token of rank 0 ...
    epoch-000200/ready-000001.json  ... that rank 1 hands back when its share is done

Every file appears whole or not at all, and nothing is pickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ._files import atomic_write
from .label_bank import Entry, read_file, write_file
from .types import FormatError

_POLL = 0.05  # seconds between two looks


class Counts(NamedTuple):
    """How the labels of one video were solved."""

    instances: int = 0
    closed_form: int = 0
    simplex: int = 0
    highs: int = 0
    relaxed: int = 0
    uncertified: int = 0
    gap: float = 0.0


Done = dict[str, tuple[Entry, Counts]]
Stamp = tuple[int, int, int]


class LabelFolder:
    """The folder of one training; `settings` are what its labels depend on."""

    def __init__(
        self, path: str | os.PathLike[str], settings: Mapping[str, Any], rank: int, world_size: int, timeout: float
    ) -> None:
        self.path = Path(path).absolute()
        self.settings = settings
        self.rank = rank
        self.world_size = world_size
        self.timeout = timeout

    # ------------------------------------------------------------------------------------------------------ the labels
    def stamp(self) -> Stamp | None:
        """Another one for every file of labels; None where there is none."""
        try:
            found = os.stat(self.path / "labels.npz")
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def read(self) -> tuple[dict[str, Entry], dict[str, Any]]:
        """The bank and its note."""
        return self._read(self.path / "labels.npz")

    def write(self, videos: Mapping[str, Entry], note: Mapping[str, Any]) -> Stamp | None:
        """Put a bank in place of the one that is there."""
        self.path.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**note, "settings": self.settings}, sort_keys=True)
        write_file(self.path / "labels.npz", videos, text)
        return self.stamp()

    def _read(self, path: Path) -> tuple[dict[str, Entry], dict[str, Any]]:
        videos, text = read_file(path)
        try:
            note = json.loads(text)
        except ValueError:
            note = None
        if not isinstance(note, dict):
            raise FormatError(f"{path}: `note` must be a JSON object, got {text!r:.80}")
        require_settings(note.get("settings"), self.settings, str(path))
        return videos, note

    # --------------------------------------------------------------------------------------- parts of a running refresh
    def _running(self, epoch: int) -> Path:
        return self.path / f"epoch-{epoch:06d}"

    def write_part(self, epoch: int, part: Done) -> None:
        """Some finished videos."""
        counts = {video_id: list(row) for video_id, (_, row) in part.items()}
        note = {"epoch": epoch, "settings": self.settings, "counts": counts}
        folder = self._running(epoch)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"part-{self.rank:06d}-{secrets.token_hex(8)}.npz"
        write_file(path, {video_id: entry for video_id, (entry, _) in sorted(part.items())}, json.dumps(note))

    def read_parts(self, epoch: int) -> Done:
        """What all ranks have finished; where several have a video, that of the lowest rank."""
        done: Done = {}
        for path in sorted(self._running(epoch).glob("part-*.npz")):
            videos, note = self._read(path)
            counts = note.get("counts")
            if note.get("epoch") != epoch or not isinstance(counts, dict) or set(counts) != set(videos):
                raise FormatError(f"{path}: `note` must be that of a part of the refresh at epoch {epoch}")
            for video_id, entry in videos.items():
                row = counts[video_id]
                if not isinstance(row, list) or [type(count) for count in row] != [int] * 6 + [float]:
                    raise FormatError(
                        f"{path}: `counts` of {video_id!r:.80} must be 6 counts and a gap, got {row!r:.80}"
                    )
                done.setdefault(video_id, (entry, Counts(*row)))
        return done

    def clear(self) -> None:
        """Remove the parts of every refresh, and nothing that is not ours."""
        for folder in self.path.glob("epoch-*"):
            for pattern in ("part-*.npz", "start.json", "ready-*.json", ".tal_postproc-*.tmp"):
                for path in folder.glob(pattern):
                    path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()

    # ------------------------------------------------------------------------------------------------ several processes
    def start(self, epoch: int) -> str:
        """A token for the others to hand back: what they said in an interrupted refresh does not count."""
        token = secrets.token_hex(8)
        self._say(epoch, "start", token)
        return token

    def wait_for_ranks(self, epoch: int, token: str) -> None:
        """Return when all the others' shares are done."""
        self._wait(epoch, lambda: self._late(epoch, token))

    def wait_for_labels(self, epoch: int, arrived: Callable[[], bool]) -> None:
        """Our share is done: return when rank 0 has made the bank."""
        said = None

        def late() -> list[int]:
            nonlocal said
            if arrived():
                return []
            token = self._said(epoch, "start")
            if token is not None and token != said:
                self._say(epoch, f"ready-{self.rank:06d}", token)
                said = token
            return [0] if token is None else self._late(epoch, token) or [0]

        self._wait(epoch, late)

    def _late(self, epoch: int, token: str) -> list[int]:
        return [rank for rank in range(1, self.world_size) if self._said(epoch, f"ready-{rank:06d}") != token]

    def _say(self, epoch: int, name: str, token: str) -> None:
        folder = self._running(epoch)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / f"{name}.json") as file:
            json.dump({"token": token}, file)

    def _said(self, epoch: int, name: str) -> str | None:
        try:
            token = json.loads((self._running(epoch) / f"{name}.json").read_text(encoding="utf-8"))["token"]
        except FileNotFoundError:
            return None
        return str(token)

    def _wait(self, epoch: int, late: Callable[[], list[int]]) -> None:
        deadline = time.monotonic() + self.timeout
        while ranks := late():
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"refresh at epoch {epoch}: rank {self.rank} of {self.world_size} has waited {self.timeout:g} s "
                    f"(`timeout`) in {self.path} for rank {', '.join(map(str, ranks))}"
                )
            time.sleep(_POLL)


def require_settings(found: Any, wanted: Mapping[str, Any], where: str) -> None:
    """ValueError, naming the settings that differ."""
    if found != wanted:
        other = found if isinstance(found, dict) else {}
        names = [name for name, value in wanted.items() if other.get(name) != value]
        raise ValueError(f"{where}: the labels there were made with other settings ({', '.join(names)})")
