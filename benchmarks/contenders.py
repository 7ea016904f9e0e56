"""Everything that is compared, behind one signature, and the loader of a user's clone of published code.

A contender's ``prepare(job)`` does what is not to be timed (files that the published code wants to read, data frames)
and gives back a call without arguments.  That call does the work; ``compared`` makes of what it returns, outside the
timing, an array which is the same for every contender of a task:

* task "chain", a `ChainJob`: rows [video, class, start, end, score], in any order;
* task "evaluation", a `MapJob`: AP of shape (thresholds, classes), classes rising;
* task "labels", a `LabelJob`: the label maps of all videos below one another; NaN where there are no labels.

``prepare`` raises `Unavailable` with the reason where a contender cannot run.  Nothing here imports `tal_postproc`
before its own contenders are prepared, so that the memory of the others can be measured without it.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import tempfile
import types
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Literal
from unittest.mock import MagicMock

import numpy as np

from tests.oracles import evaluation as literal_evaluation
from tests.oracles import linpro as literal_linpro
from tests.oracles import pipelines as literal_pipelines

from .common import Unavailable

Call = Callable[[], Any]

SELECTIONS = (("auto", "min_norm"), ("auto", "vertex"), ("highs", "min_norm"), ("highs", "vertex"))
TIOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)

# The numbers of the two published chains, written down here once more: contenders do not read our presets.
THRESHOLDS = np.arange(0.001, 0.04, 0.002)
PUBLISHED: dict[str, dict[str, float]] = {
    "rskp": {"class_threshold": 0.1, "ratio": 0.25, "power": 1.0, "nms_threshold": 0.5},
    "gaufuse": {
        "class_threshold": 0.16,
        "ratio": 0.0785,
        "power": 0.9,
        "nms_threshold": 0.25,
        "temperature": 0.2,
    },
}


@dataclass(frozen=True)
class ChainJob:
    """Videos (anything with ``maps["cas"]`` and ``scores["video"]``, without a background column) through a preset."""

    videos: Sequence[Any]
    preset: str


@dataclass(frozen=True)
class MapJob:
    """Flat columns ``video`` (names), ``label``, ``start``, ``end``, for detections also ``score``; in seconds."""

    detections: Mapping[str, np.ndarray]
    ground_truth: Mapping[str, np.ndarray]
    thresholds: Sequence[float]


@dataclass(frozen=True)
class LabelJob:
    """Instances in snippets, `Segments` of one video each, that become label maps by the numbers of GauFuse."""

    found: Sequence[Any]
    lengths: Sequence[int]
    num_classes: int
    normalization: Literal["sum", "mean"] = "sum"  # the published one is "sum"

    def systems(self) -> Iterator[tuple[int, int, np.ndarray, int]]:
        """(video, class, rows [start, end, score], snippets) of every class of a video that has instances."""
        for number, (found, length) in enumerate(zip(self.found, self.lengths)):
            rows = np.column_stack([found.segments, found.scores])
            for label in sorted(set(found.labels.tolist())):
                yield number, label, rows[found.labels == label], length


@dataclass(frozen=True)
class Contender:
    name: str
    task: Literal["chain", "evaluation", "labels"]
    prepare: Callable[[Any], Call]
    slow: bool = True  # a few repetitions must do
    compared: Callable[[Any], np.ndarray] = np.asarray


def contenders(task: str, clones: Mapping[str, Path]) -> list[Contender]:
    """All contenders of a task; `clones` maps rskp, gaufuse and anet to the folders a user has given."""
    known = [
        Contender("ours, 1 thread", "chain", lambda job: ours_chain(job, 1), slow=False, compared=as_rows),
        Contender("ours, all threads", "chain", lambda job: ours_chain(job, None), slow=False, compared=as_rows),
        Contender("literal Python", "chain", literal_chain),
        Contender("ours", "evaluation", ours_evaluation, slow=False),
        Contender("literal pandas", "evaluation", literal_map),
        Contender("as published", "labels", published_labels, compared=np.concatenate),
        Contender("linprog alone", "labels", linprog_labels, compared=np.concatenate),
        Contender("linprog, relaxed", "labels", relaxed_labels, compared=np.concatenate),
    ]
    for solver, selection in SELECTIONS:
        for threads, how in ((1, "1 thread"), (None, "all threads")):
            prepare = partial(ours_labels, solver=solver, selection=selection, num_threads=threads)
            name = f"ours, {solver}, {selection}, {how}"
            known.append(Contender(name, "labels", prepare, slow=False, compared=np.concatenate))
    for preset in ("rskp", "gaufuse"):
        if preset in clones:
            known.append(
                Contender(f"clone of {preset}", "chain", partial(clone_chain, preset=preset, root=clones[preset]))
            )
    if "anet" in clones:
        known.append(Contender("clone of anet", "evaluation", partial(clone_map, root=clones["anet"])))
    return [contender for contender in known if contender.task == task]


# ----------------------------------------------------------------------------------------------------------------- ours


def ours_chain(job: ChainJob, num_threads: int | None) -> Call:
    from tal_postproc import PostProcessor

    process = PostProcessor.from_preset(job.preset)
    videos = as_videos(job.videos)
    return lambda: list(process.process(videos, num_threads))


def as_videos(videos: Sequence[Any]) -> list[Any]:
    from tal_postproc import Video

    return [video if isinstance(video, Video) else Video("", video.maps, video.scores) for video in videos]


def as_rows(found: Any) -> np.ndarray:
    """[video, class, start, end, score] of one `Segments` per video."""
    parts = [
        np.column_stack([np.full(len(one), float(v)), one.labels, one.segments, one.scores])
        for v, one in enumerate(found)
    ]
    return np.concatenate([np.empty((0, 5)), *parts])


def as_segments(columns: Mapping[str, np.ndarray]) -> Any:
    """The flat columns as our `Segments`, by video; videos are named in the order of their names."""
    from tal_postproc import Segments

    names = sorted(set(columns["video"].tolist()))
    video = np.searchsorted(names, columns["video"])
    order = np.argsort(video, kind="stable")
    return Segments(
        np.column_stack([columns["start"], columns["end"]])[order],
        columns["label"][order],
        columns["score"][order] if "score" in columns else None,
        offsets=np.searchsorted(video[order], np.arange(len(names) + 1)),
        unit="second",
        video_ids=names,
    )


def ours_labels(job: LabelJob, solver: str, selection: str, num_threads: int | None) -> Call:
    from tal_postproc import linpro_label_maps

    numbers = PUBLISHED["gaufuse"]
    options: dict[str, Any] = {"layout": "gaufuse", "normalization": job.normalization, "solver": solver}
    options |= {"margin_scale": numbers["ratio"], "margin_power": numbers["power"], "selection": selection}

    def run() -> list[np.ndarray]:
        made = linpro_label_maps(job.found, job.lengths, job.num_classes, num_threads=num_threads, **options)
        return [one.labels for one in made]

    return run


def ours_to_map(job: ChainJob, ground_truth: Any, num_threads: int | None) -> Call:
    """TCAMs to AP under the protocol of RSKP and GauFuse; `ground_truth` as `Segments`."""
    from tal_postproc import Segments, mean_average_precision

    chain = ours_chain(job, num_threads)
    return lambda: (
        mean_average_precision(
            Segments.concatenate(chain()), ground_truth, tiou_thresholds=TIOUS, protocol="wtalc_interpolated"
        ).per_class
    )


def ours_evaluation(job: MapJob) -> Call:
    from tal_postproc import mean_average_precision

    detections, truth = as_segments(job.detections), as_segments(job.ground_truth)
    return lambda: mean_average_precision(detections, truth, tiou_thresholds=job.thresholds).per_class


# ----------------------------------------------------------------------------------------------- literal transcriptions


def literal_chain(job: ChainJob) -> Call:
    """The published chain in the manner of its code: Python lists over snippets, a NumPy mean per proposal."""

    def call() -> np.ndarray:
        found = []
        for v, video in enumerate(job.videos):
            for label, proposals in literal_proposals(video, job.preset):
                found += [
                    [v, label, *row] for row in literal_suppression(proposals, job.preset, len(video.maps["cas"]))
                ]
        return np.array(found, dtype=np.float64).reshape(-1, 5)

    return call


def literal_to_map(job: ChainJob, instances: Sequence[tuple[int, int, float, float]]) -> Call:
    """TCAMs to AP in the manner of RSKP's code: sets of snippets for every pair, once per tIoU."""
    chain = literal_chain(job)

    def call() -> np.ndarray:
        ap = literal_evaluation.wtalc_interpolated([tuple(row) for row in chain().tolist()], instances, TIOUS)
        return np.array([ap[label] for label in sorted(ap)]).T

    return call


def literal_proposals(video: Any, preset: str) -> Iterator[tuple[int, np.ndarray]]:
    """Rows [start, end, score, inner] of every class that passes."""
    tcam, scores, numbers = video.maps["cas"], video.scores["video"], published(preset)
    for label in range(tcam.shape[1]):
        if scores[label] >= numbers["class_threshold"]:
            yield (
                label,
                literal_pipelines._rskp_proposals(
                    tcam[:, label], THRESHOLDS, 2, numbers["ratio"], numbers["power"], 1.0
                ),
            )


def literal_suppression(proposals: np.ndarray, preset: str, length: int) -> Iterator[list[float]]:
    """Rows [start, end, score].  Fusion as published: member by member, and a mask over the video for every pick."""
    numbers = published(preset)
    for pick, members in literal_pipelines._greedy(proposals, numbers["nms_threshold"]):
        if "temperature" not in numbers:
            yield [*proposals[pick, :3]]
            continue
        occupied = np.array([0.0 for _ in range(length)])
        occupied[int(proposals[pick, 0]) : int(proposals[pick, 1]) + 1] = 1.0
        start = end = score = total = 0.0
        for member in members:
            row = proposals[member]
            start += row[0] * np.exp(row[3] / numbers["temperature"])
            end += row[1] * np.exp(row[3] / numbers["temperature"])
            score += row[2] * np.exp(row[3] / numbers["temperature"])
            total += np.sign(row[3]) * np.exp(row[3] / numbers["temperature"])
        yield [start / total, end / total, score / total]


def published(preset: str) -> dict[str, float]:
    if preset not in PUBLISHED:
        raise Unavailable(f"there is no transcription of preset {preset!r}")
    return PUBLISHED[preset]


def published_system(rows: np.ndarray, num_snippets: int, normalization: str) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and right side of one class, in the manner of the published code: row by row, lists over the snippets."""
    numbers = PUBLISHED["gaufuse"]
    matrix, right_side = [], []
    for first, last, score in rows.tolist():
        start, stop = int(first), int(last)
        margin = numbers["ratio"] * (stop - start) ** numbers["power"]
        left, right = max(0, int(start - margin)), min(num_snippets - 1, int(stop + margin + 1))
        row = [1.0 if start <= t < stop else -1.0 if left <= t < right else 0.0 for t in range(num_snippets)]
        if normalization == "mean":
            count = {value: max(row.count(value), 1) for value in (1.0, -1.0, 0.0)}
            row = [value / count[value] for value in row]
        matrix.append(row)
        right_side.append(score)
    return np.array(matrix), np.array(right_side)


def published_labels(job: LabelJob) -> Call:
    """Label maps by one linear program over all snippets per class, its matrix included."""
    return lambda: _linprog(
        job, ((v, k, *published_system(rows, length, job.normalization)) for v, k, rows, length in job.systems())
    )


def linprog_labels(job: LabelJob) -> Call:
    """The same, given the matrices."""
    systems = [(v, k, *published_system(rows, length, job.normalization)) for v, k, rows, length in job.systems()]
    return lambda: _linprog(job, systems)


def relaxed_labels(job: LabelJob) -> Call:
    """Given the matrices: an answer for all, by further linear programs where the scores cannot be met."""
    systems = [(v, k, *published_system(rows, length, job.normalization)) for v, k, rows, length in job.systems()]

    def call() -> list[np.ndarray]:
        maps = [np.zeros((length, job.num_classes)) for length in job.lengths]
        for video, label, matrix, right_side in systems:
            maps[video][:, label] = literal_linpro.solve(matrix, right_side, 1.0).labels
        return maps

    return call


def _linprog(job: LabelJob, systems: Iterable[tuple[int, int, np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    from scipy.optimize import linprog

    maps = [np.zeros((length, job.num_classes)) for length in job.lengths]
    for video, label, matrix, right_side in systems:
        # None where the scores cannot be met, which NumPy turns into a column of NaN, as in the published code
        maps[video][:, label] = linprog(np.ones(matrix.shape[1]), A_eq=matrix, b_eq=right_side, bounds=(0, 1)).x
    return maps


def literal_map(job: MapJob) -> Call:
    """The ActivityNet evaluator in the manner of its code: data frames, and a Python loop over predictions."""
    try:
        import pandas as pd
    except ImportError as error:
        raise Unavailable("pandas is not installed") from error
    detections, truth = (pd.DataFrame(dict(columns)) for columns in (job.detections, job.ground_truth))

    def call() -> np.ndarray:
        result = literal_evaluation.activitynet_pandas(detections, truth, job.thresholds)
        return np.array([result[label] for label in sorted(result)]).T

    return call


# ------------------------------------------------------------------------------------------------- a user's own clone


def clone_chain(job: ChainJob, preset: str, root: Path) -> Call:
    """``getActLoc`` of a clone of RSKP or GauFuse: evaluation/detectionMAP.py."""
    if job.preset != preset:
        raise Unavailable(f"it publishes {preset}, not {job.preset}")
    with as_published(root):
        module = load(root, root / "evaluation" / "detectionMAP.py", needs="getActLoc")
    num_classes = job.videos[0].maps["cas"].shape[1]
    folder = tempfile.mkdtemp(prefix="tal_postproc_bench_")
    write_class_list(Path(folder), len(job.videos), num_classes)
    settings = types.SimpleNamespace(
        feature_type="I3D",
        class_threshold=published(preset)["class_threshold"],
        eval_temperature=published(preset).get("temperature"),
        use_new_predictor=True,
    )
    scores = [video.scores["video"] for video in job.videos]
    maps = [video.maps["cas"] for video in job.videos]
    lengths = [[len(one)] for one in maps]

    def call() -> np.ndarray:
        with as_published(root):
            by_class = module.getActLoc(scores, maps, lengths, THRESHOLDS, folder, settings)
        parts = [
            np.insert(np.asarray(rows, dtype=np.float64), 1, label, axis=1)
            for label, rows in enumerate(by_class)
            if len(rows)
        ]
        return np.concatenate([np.empty((0, 5)), *parts])

    weakref.finalize(call, shutil.rmtree, folder, ignore_errors=True)
    return call


def write_class_list(folder: Path, num_videos: int, num_classes: int) -> None:
    """Annotations in W-TALC's layout, of which getActLoc reads the videos of the test set and the list of classes."""
    names = [f"class{k:03d}" for k in range(num_classes)]
    segments = np.empty(num_videos, dtype=object)
    labels = np.empty(num_videos, dtype=object)
    for v in range(num_videos):
        segments[v], labels[v] = [[0.0, 1.0]] * num_classes, list(names)
    np.save(folder / "segments.npy", segments, allow_pickle=True)
    np.save(folder / "labels.npy", labels, allow_pickle=True)
    np.save(folder / "videoname.npy", np.array([b"video%06d" % v for v in range(num_videos)]))
    np.save(folder / "subset.npy", np.array([b"test"] * num_videos))
    np.save(folder / "classlist.npy", np.array([name.encode() for name in names]))


def clone_map(job: MapJob, root: Path) -> Call:
    """``ANETdetection(...).evaluate()`` of a clone, wherever it keeps it; reading its JSON files is not timed."""
    sources = sorted(p for p in Path(root).rglob("*.py") if "class ANETdetection" in p.read_text(errors="replace"))
    if not sources:
        raise Unavailable("no file of the clone defines the class ANETdetection")
    with as_published(root), tempfile.TemporaryDirectory(prefix="tal_postproc_bench_") as folder:
        module = load(root, sources[0], needs="ANETdetection")
        truth, predictions = Path(folder) / "truth.json", Path(folder) / "predictions.json"
        write_activitynet(truth, predictions, job)
        evaluator = module.ANETdetection(
            str(truth),
            str(predictions),
            tiou_thresholds=np.array(job.thresholds),
            subset="test",
            verbose=False,
            check_status=False,
        )
    order = [column for _, column in sorted((int(name), at) for name, at in evaluator.activity_index.items())]

    def call() -> np.ndarray:
        with as_published(root):
            evaluator.evaluate()
        return np.asarray(evaluator.ap)[:, order]

    return call


def write_activitynet(truth: Path, predictions: Path, job: MapJob) -> None:
    """Both JSON files, with the fields that any variant of the evaluator asks for."""
    database: dict[str, Any] = {}
    for video, label, start, end in zip(
        *(job.ground_truth[key].tolist() for key in ("video", "label", "start", "end"))
    ):
        entry = database.setdefault(video, {"subset": "test", "annotations": []})
        entry["annotations"].append({"label": str(label), "segment": [start, end]})
    results: dict[str, Any] = {}
    columns = (job.detections[key].tolist() for key in ("video", "label", "start", "end", "score"))
    for video, label, start, end, score in zip(*columns):
        results.setdefault(video, []).append({"label": str(label), "segment": [start, end], "score": score})
    truth.write_text(json.dumps({"database": database, "taxonomy": [], "version": "1"}))
    predictions.write_text(json.dumps({"results": results, "version": "1", "external_data": {}, "method": ""}))


def load(root: Path, file: Path, needs: str) -> types.ModuleType:
    """A module of a clone by its path; call it within `as_published`.

    Packages that it imports and that are not installed (torch, say) become empty shells: functions that are timed here
    need none, and if one did, its results would not agree.
    """
    root, file = Path(root).resolve(), Path(file).resolve()
    if not file.is_file():
        raise Unavailable(f"the clone has no {file.relative_to(root)}")
    name = ".".join(file.relative_to(root).with_suffix("").parts)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise Unavailable(f"{file.name} is not a Python module")
    shells: set[str] = set()
    try:
        while True:
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            try:
                spec.loader.exec_module(module)
                break
            except ModuleNotFoundError as error:
                if error.name is None or error.name in shells:
                    raise
                shells.add(error.name)
                sys.modules[error.name] = _shell(error.name)
    except Exception as error:
        raise Unavailable(f"{file.name} does not load: {type(error).__name__}: {error}") from error
    finally:
        for shell in shells:
            sys.modules.pop(shell, None)
    if not hasattr(module, needs):
        raise Unavailable(f"{file.name} has no {needs}")
    return module


def _shell(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module)["__path__"] = []
    vars(module)["__getattr__"] = lambda attribute: MagicMock()
    return module


@contextmanager
def as_published(root: Path) -> Iterator[None]:
    """The surroundings that published code expects; all is as before when it ends.

    Its own folder comes first on the path.  NumPy has its old names back, and ``np.load`` reads object arrays (only
    files of ours are there to be read).  joblib is a plain loop: one process, as ours, and no pool to pay for.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise Unavailable("the folder does not exist")
    tops = {path.stem for path in root.iterdir()} | {"joblib"}

    def take_away() -> dict[str, types.ModuleType]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in tops}

    saved_path, saved_argv, load_arrays, saved_modules = sys.path[:], sys.argv, np.load, take_away()
    old_names = {"float": float, "int": int, "object": object}
    missing = [name for name in old_names if name not in np.__dict__]
    sys.path.insert(0, str(root))
    sys.modules["joblib"] = _plain_joblib()
    sys.argv = [""]
    for name in missing:
        setattr(np, name, old_names[name])
    np.load = lambda *args, **more: load_arrays(*args, **{**more, "allow_pickle": True})
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        np.load = load_arrays
        for name in missing:
            delattr(np, name)
        sys.argv, sys.path[:] = saved_argv, saved_path
        take_away()
        sys.modules.update(saved_modules)


def _plain_joblib() -> types.ModuleType:
    module = types.ModuleType("joblib")
    vars(module)["delayed"] = lambda function: lambda *args, **more: (function, args, more)
    vars(module)["Parallel"] = lambda *_, **__: (
        lambda tasks: [function(*args, **more) for function, args, more in tasks]
    )
    return module
