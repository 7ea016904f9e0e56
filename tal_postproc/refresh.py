"""`LabelRefresher`: from the TCAMs of a training set to the targets of the next epochs, in any training loop."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import asdict, replace
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks, _threads, presets
from ._checks import Float
from ._label_folder import Counts, Done, LabelFolder, Stamp, require_settings
from ._signals import about
from .config import LinPro, Pipeline, RefreshSchedule
from .label_bank import DeltaPseudoLabels, Entry, encoded
from .linpro import linpro_label_map
from .pipeline import PostProcessor
from .types import FormatError, LabelChurn, RefreshReport, Segments, Video

__all__ = ["LabelRefresher"]

_FORMAT = "tal_postproc.LabelRefresher 1"
_PART_VIDEOS = 64  # a part of a refresh goes to disk when it has so many videos,
_PART_SECONDS = 5.0  # or is so old
_VIDEO_BYTES = _threads.BUDGET // 8  # what a video weighs at least: what is in flight is lost when a process is killed
_CHURN_TIOU = 0.5  # from where on an old and a new instance are one

_logger = logging.getLogger(__name__)


class _State(NamedTuple):
    """The labels of the last refresh.  Replaced as a whole, so that readers in other threads see one or the other."""

    bank: DeltaPseudoLabels
    epoch: int = -1  # of the last refresh; -1 before the first one
    number: int = 0  # of refreshes
    report: RefreshReport | None = None
    stamp: Stamp | None = None  # of the file that holds this state


class _Chain(NamedTuple):
    """From TCAMs to labels: what finds the instances, and the options of LinPro."""

    process: PostProcessor
    rule: LinPro


class LabelRefresher:
    """Pseudo labels for a training loop: made anew when a schedule says so, kept, and handed out as targets.

    A refresh takes the TCAMs of the training set, finds instances (`PostProcessor`), makes label maps of them (LinPro,
    or a maker of your own) and puts these into a bank (`DeltaPseudoLabels`), whose differences are the targets::

        refresher = tpp.LabelRefresher("gaufuse", 20, known_labels=train_labels, total_epochs=350, folder="labels")
        for epoch in range(350):
            if refresher.due(epoch):
                print(refresher.refresh(epoch, videos()))
            ...
            if refresher.epoch is not None:
                target = refresher.targets(video_id, epoch)

    Parameters
    ----------
    pipeline : str, config.Pipeline, or a sequence of them
        Finds the instances: the name of a preset, whose partner for pseudo labels is taken where it has one (see
        `presets.for_labels`), or your own.  Its `labels` are the options of LinPro.  Of a sequence the first is for the
        first epoch of the schedule, and so on; the last is for all that are left.
    num_classes : int
        K, the number of columns of a label map.
    known_labels : mapping of str to (K,) array_like of bool or sequence of int, or None
        For every video the classes that it is known to show, as a mask or as indices; it may know more videos.  Those
        classes are searched, and no others: what the pipeline says about the choice of classes does not count.  None
        leaves the choice to the pipeline, as the released code of GauFuse does.
    schedule : config.RefreshSchedule, optional
        When to refresh, and the factors of the differences.  Default: that of the GauFuse paper.
    total_epochs : int
        Length of the whole training.
    background : {"none", "first", "last"}
        Where the targets have a column of zeros for the background.
    make_labels : callable, optional
        Makes the map of a video in place of LinPro: called as ``make_labels(instances, num_snippets, num_classes,
        known_labels=mask)``, like `score_label_map` and the other makers, it gives a (T, K) array.  `mask` is (K,) bool
        or None; only instances of these classes are handed over.  It is called from several threads.
    folder : str or path, optional
        Where labels are kept: what is there is picked up, an interrupted refresh goes on where it was, and other
        processes see new labels.  Without it labels live in this object only.
    num_threads : int, optional
        Default: all cores, shared among the ranks; one inside a worker process.  The labels do not depend on it.
    rank, world_size : int, optional
        Of this process among those that train together; they meet in `folder`.  Default: the environment variables
        RANK and WORLD_SIZE where both are set, as torchrun does, else 0 and 1.
    timeout : float, default 1800
        Seconds that a process whose share is done waits for the others.

    Raises
    ------
    ValueError
        If an argument does not fit, or `folder` holds labels that were made with other settings.

    Notes
    -----
    The folder holds ``labels.npz``, the bank, which `DeltaPseudoLabels.load` reads, and while a refresh runs its parts,
    each whole or not there at all.  Nothing is pickled.  `targets`, `due` and `epoch` look, at the price of one
    ``stat``, whether there are newer labels in the folder, so DataLoader workers, forked or spawned, persistent or not,
    see them.  The bytes of the labels do not depend on threads, ranks, interruptions or the order of the videos.
    docs/howto/refresh.md shows all of it in a training.

    Examples
    --------
    >>> refresher = LabelRefresher("rskp", 2, known_labels={"v": [0]}, total_epochs=20)
    >>> refresher.due(10), refresher.due(11)
    (False, True)
    >>> tcam = np.array([[0.0, 0.1], [0.9, 0.1], [0.8, 0.1], [0.0, 0.1], [0.0, 0.1]])
    >>> report = refresher.refresh(11, [Video("v", {"cas": tcam})])
    >>> report.num_instances, report.solved["closed_form"]
    (1, 1)
    >>> refresher.targets("v", 11).round(2).T.tolist()
    [[0.0, 0.57, 0.57, 0.57, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]]
    """

    def __init__(
        self,
        pipeline: str | Pipeline | Sequence[str | Pipeline],
        num_classes: int,
        *,
        known_labels: Mapping[str, ArrayLike] | None,
        total_epochs: int,
        schedule: RefreshSchedule | None = None,
        background: Literal["none", "first", "last"] = "none",
        make_labels: Callable[..., ArrayLike] | None = None,
        folder: str | os.PathLike[str] | None = None,
        num_threads: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        timeout: float = 1800.0,
    ) -> None:
        self.num_classes = _checks.as_count(num_classes, "num_classes", at_least=1)
        self.total_epochs = _checks.as_count(total_epochs, "total_epochs", at_least=1)
        self.schedule = RefreshSchedule.paper() if schedule is None else schedule
        if not isinstance(self.schedule, RefreshSchedule):
            raise TypeError(f"`schedule` must be a config.RefreshSchedule, got {type(schedule).__name__}")
        self._epochs = self.schedule.epochs(self.total_epochs)
        _checks.as_choice(background, "background", ("none", "first", "last"))
        self._padding = (0, 0), (int(background == "first"), int(background == "last"))
        if make_labels is not None and not callable(make_labels):
            raise TypeError(f"`make_labels` must be callable, got {type(make_labels).__name__}")
        self._make = make_labels
        self._known = _as_known(known_labels, self.num_classes)
        self._chains = _as_chains(pipeline, self._known is not None)
        self._settings = self._described()
        rank, world_size = _as_ranks(rank, world_size)
        if num_threads is None and world_size > 1:
            num_threads = max(1, _threads.default_threads() // world_size)
        self._threads = None if num_threads is None else _checks.as_count(num_threads, "num_threads", at_least=1)
        wait = _checks.as_number(timeout, "timeout", at_least=0.0)
        if world_size > 1 and folder is None:
            raise ValueError(f"`folder` must be given for {world_size} processes (`world_size`): they meet there")
        self._rank, self._world_size = rank, world_size
        self._folder = None if folder is None else LabelFolder(folder, self._settings, rank, world_size, wait)
        self._state = _State(DeltaPseudoLabels())
        self._catch_up()

    def __repr__(self) -> str:
        state = self._catch_up()
        last = "no refresh yet" if state.epoch < 0 else f"refresh {state.number} at epoch {state.epoch}"
        return f"<LabelRefresher: {last}, {len(state.bank)} videos, {self.num_classes} classes>"

    @property
    def bank(self) -> DeltaPseudoLabels:
        """The bank of the last refresh; the next one makes a new bank."""
        return self._catch_up().bank

    @property
    def epoch(self) -> int | None:
        """The epoch of the last refresh, None before the first one."""
        epoch = self._catch_up().epoch
        return None if epoch < 0 else epoch

    # ------------------------------------------------------------------------------------------------- in the training
    def due(self, epoch: int) -> bool:
        """Whether a refresh comes before this epoch: one that is scheduled for it or was left out before it.

        ValueError if the labels are those of a later epoch.
        """
        return self._at(epoch).epoch < self._scheduled(epoch)

    def targets(self, video_id: str, epoch: int) -> Float:
        """What to train on in an epoch: labels, or a multiple of the difference of the last two label maps.

        Parameters
        ----------
        video_id : str
            A video of the last refresh.
        epoch : int
            The number of epochs that are done; it decides on the factor (`RefreshSchedule.delta_scale`).

        Returns
        -------
        targets : (T, K) ndarray of float64
            A new array, (T, K + 1) with a background.  The labels themselves until the second refresh, and as long as
            the schedule has no factor.

        Raises
        ------
        ValueError
            If there are no labels yet, or only those of a later epoch.
        KeyError
            If the bank does not know the video.
        """
        state = self._at(epoch)
        if state.epoch < 0:
            raise ValueError(f"`epoch` must not come before the first refresh, due at {self._epochs[0]}, got {epoch}")
        scale = self.schedule.delta_scale(epoch, self.total_epochs)
        return np.pad(state.bank.targets(video_id, scale=scale), self._padding)

    def todo(self, epoch: int, video_ids: Iterable[str]) -> list[str]:
        """The videos that this process still has to label in the refresh of an epoch.

        That is every `world_size`-th of them, without those that an interrupted refresh has finished: made from it,
        `videos` of `refresh` runs the model for nothing that is not needed.  All ranks must give the same list.

        >>> LabelRefresher("rskp", 2, known_labels=None, total_epochs=20).todo(11, ["a", "b"])
        ['a', 'b']
        """
        self._require_due(epoch)
        done = {} if self._folder is None else self._folder.read_parts(epoch)
        return [video_id for video_id in list(video_ids)[self._rank :: self._world_size] if video_id not in done]

    def refresh(self, epoch: int, videos: Iterable[Video], *, progress: bool = False) -> RefreshReport:
        """Make the labels anew, from the TCAMs of the training set.

        All of it happens or nothing: after an error the labels are what they were.  With a folder, what was finished
        stays for the next attempt.

        Parameters
        ----------
        epoch : int
            The number of epochs that are done.
        videos : iterable of Video
            The training set, each video once; read as it is needed, at most 16 videos ahead per thread.  With several
            processes: the share of this one, by `todo` or by a sampler of yours; a video that several processes bring,
            as padding samplers do, counts with the labels of the lowest rank.  Videos that an interrupted refresh has
            finished may be left out, and are not labelled again.
        progress : bool
            Show a bar on a terminal; nothing in a pipe.

        Returns
        -------
        RefreshReport
            How much the labels changed, and how they were solved; the same on every rank, but for the seconds.

        Raises
        ------
        ValueError
            If no refresh is due, a video comes twice, is not known or is missing, or does not fit; the message names
            it.
        TimeoutError
            If other ranks do not finish; the message names them.

        Warns
        -----
        LabelCollapseWarning
            On rank 0, if all labels are 0 or nearly all snippets are labelled; see `DeltaPseudoLabels.update`.
        """
        started = time.perf_counter()
        before = self._require_due(epoch)
        folder, token = self._folder, ""
        if folder is not None and self._world_size > 1 and self._rank == 0:
            token = folder.start(epoch)
        done = {} if folder is None else folder.read_parts(epoch)
        if done:
            _logger.info("the refresh at epoch %d goes on: %d videos are done", epoch, len(done))
        for part in self._labelled_parts(epoch, videos, frozenset(done), before.bank, progress):
            done.update(part)
        if folder is not None and self._rank:
            folder.wait_for_labels(epoch, lambda: self._catch_up().epoch == epoch)
            report = cast(RefreshReport, self._state.report)
        else:
            if folder is not None and self._world_size > 1:
                folder.wait_for_ranks(epoch, token)
                done = folder.read_parts(epoch)
            report = self._finish(epoch, before, done)
        return replace(report, seconds=time.perf_counter() - started)

    def _finish(self, epoch: int, before: _State, done: Done) -> RefreshReport:
        """The labels of all videos become those of the bank."""
        old, new = before.bank._videos, {video_id: entry for video_id, (entry, _) in done.items()}
        left = [video_id for video_id in old if video_id not in new]
        if left:
            raise ValueError(
                f"`videos` must bring every video of the refresh before, {left[0]!r} is missing ({len(left)} of "
                f"{len(old)} videos)"
            )
        for video_id in old:
            was, shape = old[video_id].shape, new[video_id].shape
            if shape != was:  # of parts that were made beside another bank
                raise ValueError(f"`videos` must keep their shapes, {video_id!r} had {was}, got {shape}")
        bank = DeltaPseudoLabels()
        bank._videos = old
        churn = bank._take(new, False, _CHURN_TIOU, stacklevel=5)
        counts = [Counts(), *(row for _, row in done.values())]
        total = Counts(*map(sum, zip(*counts)))
        report = RefreshReport(
            epoch,
            before.number + 1,
            churn,
            total.instances,
            {} if self._make else {name: getattr(total, name) for name in ("closed_form", "simplex", "highs")},
            total.relaxed,
            total.uncertified,
            max(row.gap for row in counts),
        )
        self._keep(_State(bank, epoch, before.number + 1, report))
        if self._folder is not None:
            self._folder.clear()
        return report

    # --------------------------------------------------------------------------------------------------- checkpoints
    def state_dict(self) -> dict[str, Any]:
        """The labels and the settings they were made with, for any checkpoint: text, numbers, and lists of them.

        ``torch.load(..., weights_only=True)`` reads it, and so does JSON.
        """
        state = self._catch_up()
        return {
            "format": _FORMAT,
            "settings": self._settings,
            "epoch": state.epoch,
            "number": state.number,
            "bank": state.bank.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` described.

        The weights of a checkpoint go with its labels.  So where the folder holds others, of a later refresh say, those
        of the checkpoint take their place, and a line in the log says so.  With several processes all of them load it.

        Parameters
        ----------
        state : mapping
            What `state_dict` gave.  FormatError if it is not whole, ValueError if it was made with other settings; then
            nothing changes.
        """
        names = {"format", "settings", "epoch", "number", "bank"}
        if not isinstance(state, Mapping) or set(state) != names or state["format"] != _FORMAT:
            raise FormatError(f"state: must be {_FORMAT!r} with {', '.join(sorted(names))}")
        loaded = DeltaPseudoLabels()
        loaded.load_state_dict(state["bank"])
        require_settings(state["settings"], self._settings, "state")
        made = self._checked(loaded, state, "state")
        ours = self._catch_up()
        if self._folder is not None and ours.epoch != made.epoch and ours.epoch >= 0:
            _logger.warning(
                "%s: the labels of epoch %d make way for those of the checkpoint, of epoch %d",
                self._folder.path,
                ours.epoch,
                made.epoch,
            )
        self._keep(made)

    # ------------------------------------------------------------------------------------------------- settings, epochs
    def _described(self) -> dict[str, Any]:
        """What the labels depend on, as JSON has it."""
        pipelines = [process.pipeline.to_dict() for process, _ in self._chains]
        rules = [rule.to_dict() for _, rule in self._chains]
        for pipeline in pipelines:
            for name in ("labels", "protocol", "provenance"):
                del pipeline[name]
        known = None
        if self._known is not None:
            listed = [[video_id, np.flatnonzero(mask).tolist()] for video_id, mask in sorted(self._known.items())]
            known = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
        settings = {
            "pipeline": pipelines[0] if len(pipelines) == 1 else pipelines,
            "labels": _name_of(self._make) if self._make else rules[0] if len(rules) == 1 else rules,
            "num_classes": self.num_classes,
            "known_labels": known,
        }
        return cast(dict[str, Any], json.loads(json.dumps(settings)))

    def _chain(self, epoch: int) -> _Chain:
        """What makes the labels of an epoch with a refresh."""
        return self._chains[min(self._epochs.index(self._scheduled(epoch)), len(self._chains) - 1)]

    def _scheduled(self, epoch: int) -> int:
        """The last epoch up to this one with a refresh; -1 where there is none."""
        return max((scheduled for scheduled in self._epochs if scheduled <= epoch), default=-1)

    def _at(self, epoch: int) -> _State:
        """The labels as they are for an epoch."""
        epoch = _checks.as_count(epoch, "epoch")
        state = self._catch_up()
        if state.epoch > epoch:
            raise ValueError(
                f"`epoch` must not come before the last refresh, at {state.epoch}, got {epoch}; to go back, load the "
                "refresher's state with the checkpoint, or start with an empty folder"
            )
        return state

    def _require_due(self, epoch: int) -> _State:
        state = self._at(epoch)
        if state.epoch >= self._scheduled(epoch):
            last = "there was none yet" if state.epoch < 0 else f"the last one was at {state.epoch}"
            raise ValueError(f"`epoch` must have a refresh due, got {epoch}; they are at {self._epochs}, {last}")
        return state

    # ----------------------------------------------------------------------------------------------- from TCAM to label
    def _labelled_parts(
        self, epoch: int, videos: Iterable[Video], done: frozenset[str], bank: DeltaPseudoLabels, progress: bool
    ) -> Iterator[Done]:
        """The labels of the videos that are not done, in parts that are on disk where there is a folder."""
        if isinstance(videos, Video) or not isinstance(videos, Iterable):
            raise TypeError(f"`videos` must be an iterable of Video, got {type(videos).__name__}")
        if _checks.as_flag(progress, "progress"):
            from tqdm import tqdm

            total = len(videos) if isinstance(videos, Sized) else None
            videos = tqdm(videos, total=total, unit="video", disable=None)
        made = _threads.ordered_map(
            functools.partial(self._label_each, bank, self._chain(epoch)),
            self._new(videos, done),
            self._threads,
            _weight,
        )
        part: Done = {}
        last = time.monotonic()
        try:
            for result in made:
                if isinstance(result, Exception):
                    raise result
                part[result[0]] = result[1:]
                if self._folder is not None and (len(part) >= _PART_VIDEOS or time.monotonic() > last + _PART_SECONDS):
                    self._folder.write_part(epoch, part)
                    yield part
                    part, last = {}, time.monotonic()
        finally:  # also what was finished before an error
            made.close()
            if self._folder is not None and part:
                self._folder.write_part(epoch, part)
        yield part

    def _new(self, videos: Iterable[Video], done: frozenset[str]) -> Iterator[Video]:
        """The videos that are not done, checked."""
        seen = set()
        for video in videos:
            if not isinstance(video, Video) or not isinstance(video.id, str) or "\0" in video.id:
                shown = repr(video.id)[:80] if isinstance(video, Video) else type(video).__name__
                raise TypeError(f"`videos` must hold Video with ids that are text without NUL, got {shown}")
            if video.id in seen:
                raise ValueError(f"`videos` must hold every video once, {video.id!r} stands twice")
            if self._known is not None and video.id not in self._known:
                raise ValueError(f"`known_labels` must know every video, {video.id!r} is missing")
            seen.add(video.id)
            if video.id not in done:
                yield video

    def _label_each(
        self, bank: DeltaPseudoLabels, chain: _Chain, videos: list[Video]
    ) -> list[tuple[str, Entry, Counts] | Exception]:
        """The labels of a few videos; after a bad one comes its error, and nothing more."""
        made: list[tuple[str, Entry, Counts] | Exception] = []
        try:
            for video, found in zip(videos, chain.process.process(videos, num_threads=1)):
                made.append((str(video.id), *self._label(bank, chain.rule, video, found)))
        except (ValueError, TypeError) as error:
            made.append(error)
        return made

    def _label(self, bank: DeltaPseudoLabels, rule: LinPro, video: Video, found: Segments) -> tuple[Entry, Counts]:
        known = None if self._known is None else self._known[video.id]
        shape = video.num_snippets, self.num_classes
        try:
            found = self._instances(video, found, known)
            if self._make is None:
                made = linpro_label_map(found, *shape, **asdict(rule))
                labels: ArrayLike = made.labels
                counts = Counts(
                    len(found), **made.solved, relaxed=made.status.count("relaxed"), uncertified=made.uncertified,
                    gap=float(made.gap.max(initial=0.0)),
                )  # fmt: skip
            else:
                labels, counts = self._make(found, *shape, known_labels=known), Counts(len(found))
                if np.shape(labels) != shape:
                    raise ValueError(f"`make_labels` must give a map of shape {shape}, got {np.shape(labels)}")
            before = bank._videos[video.id].shape if video.id in bank else None
            return encoded(labels, found, ("labels", "instances"), before, self.num_classes), counts
        except (ValueError, TypeError) as error:
            raise about(video, error) from error

    def _instances(self, video: Video, found: Segments, known: NDArray[np.bool_] | None) -> Segments:
        """The instances that labels are made of, in snippets."""
        if found.unit == "second":
            if video.warp is not None or video.seconds_per_snippet is None:
                raise ValueError("instances in seconds need `seconds_per_snippet`, and no `warp`, to become labels")
            found = found.to_snippets(video.seconds_per_snippet)
        if known is not None:
            return found.select(np.isin(found.labels, np.flatnonzero(known)))
        if len(found) and found.labels.max() >= self.num_classes:
            raise ValueError(
                f"`num_classes` is {self.num_classes}, and the pipeline found class {found.labels.max()}; if that is "
                "the background, count it as a class or give a pipeline whose `background` leaves it out"
            )
        return found

    # ------------------------------------------------------------------------------------------------------- the state
    def _catch_up(self) -> _State:
        """The state, taken from the folder where that holds another one than ours."""
        stamp = None if self._folder is None else self._folder.stamp()
        if self._folder is not None and stamp not in (None, self._state.stamp):
            videos, note = self._folder.read()
            bank = DeltaPseudoLabels()
            bank._videos = videos
            where = str(self._folder.path)
            self._state = self._checked(bank, note, where)._replace(
                report=_as_report(note.get("report"), where), stamp=stamp
            )
        return self._state

    def _checked(self, bank: DeltaPseudoLabels, note: Mapping[str, Any], where: str) -> _State:
        """The state that a bank and its note make up."""
        epoch, number = note.get("epoch"), note.get("number")
        if type(epoch) is not int or type(number) is not int or (epoch < 0) != (number < 1):
            raise FormatError(f"{where}: `epoch` and `number` do not fit together, got {epoch!r:.80}, {number!r:.80}")
        if len(bank) and (number == 0 or bank.num_classes != self.num_classes):
            raise FormatError(f"{where}: must not hold {len(bank)} videos of {bank.num_classes} classes at {epoch}")
        return _State(bank, epoch, number)

    def _keep(self, state: _State) -> None:
        """Make this the state, in the folder, too."""
        if self._folder is not None:
            report = None if state.report is None else asdict(state.report)
            note = {"epoch": state.epoch, "number": state.number, "report": report}
            state = state._replace(stamp=self._folder.write(state.bank._videos, note))
        self._state = state


def _as_chains(pipelines: Any, knows: bool) -> tuple[_Chain, ...]:
    """One for every pipeline; what is known about classes takes the place of the rule that guesses it."""
    given = [pipelines] if isinstance(pipelines, (str, Pipeline)) else pipelines
    if not isinstance(given, Sequence) or not given:
        raise TypeError(
            f"`pipeline` must be the name of a preset, a config.Pipeline, or a sequence of at least one of them, got "
            f"{pipelines!r:.80}"
        )
    found = [presets.for_labels(one) if isinstance(one, str) else one for one in given]
    processes = [PostProcessor(one) for one in found]
    if knows:
        processes = [PostProcessor(replace(one, classes=None)) for one in found]
    return tuple(_Chain(process, one.labels or LinPro()) for process, one in zip(processes, found))


def _as_known(known: Any, num_classes: int) -> dict[str, NDArray[np.bool_]] | None:
    """A mask per video."""
    if known is None:
        return None
    if not isinstance(known, Mapping):
        raise TypeError(f"`known_labels` must be a mapping of video ids to labels, or None, got {type(known).__name__}")
    masks = {}
    for video_id, labels in known.items():
        if not isinstance(video_id, str) or labels is None:
            raise TypeError(f"`known_labels` must hold ids and masks or indices, got {video_id!r:.80}: {labels!r:.80}")
        masks[video_id] = _checks.as_known_labels(labels, num_classes, f"known_labels[{video_id!r:.80}]")
        masks[video_id].setflags(write=False)  # label makers are given it
    return masks


def _as_ranks(rank: Any, world_size: Any) -> tuple[int, int]:
    """Of the arguments, else of the environment."""
    if (rank is None) != (world_size is None):
        raise ValueError(f"`rank` and `world_size` must be given together, got {rank!r:.80} and {world_size!r:.80}")
    if rank is None:
        if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
            return 0, 1
        texts = os.environ["RANK"], os.environ["WORLD_SIZE"]
        try:
            rank, world_size = map(int, texts)
        except ValueError:
            raise ValueError(
                f"RANK and WORLD_SIZE must be whole numbers, got {texts[0]!r:.80}, {texts[1]!r:.80}"
            ) from None
    size = _checks.as_count(world_size, "world_size", at_least=1)
    if _checks.as_count(rank, "rank") >= size:
        raise ValueError(f"`rank` must be below `world_size`, {size}, got {rank}")
    return int(rank), size


def _as_report(value: Any, where: str) -> RefreshReport | None:
    if value is None:
        return None
    try:
        return RefreshReport(**{**value, "churn": LabelChurn(**value["churn"])})
    except (TypeError, KeyError):
        raise FormatError(f"{where}: `report` must be that of a refresh, got {value!r:.80}") from None


def _name_of(make: Callable[..., Any]) -> str:
    """What tells one maker of labels from another, in every process."""
    if isinstance(make, functools.partial):
        return f"{_name_of(make.func)} {make.args!r} {sorted(make.keywords.items())!r}"
    return str(getattr(make, "__qualname__", type(make).__qualname__))


def _weight(video: Video) -> int:
    return max(_VIDEO_BYTES, sum(array.nbytes for array in video.maps.values()))
