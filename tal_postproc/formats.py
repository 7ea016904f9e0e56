"""Files and tables that other codebases use: read with suspicion, written whole or not at all.

=====================  =============================================  =======================================
ActivityNet JSON       `read_detections`, `read_annotations`          `write_detections`, `write_annotations`
npz of TCAMs           `read_tcams`, `open_tcams` for a part of it    `write_tcams`
W-TALC folder          `read_wtalc_annotations`
ActionFormer's dict    `from_actionformer`                            `to_actionformer`
pandas                 `from_dataframe`                               `to_dataframe`
=====================  =============================================  =======================================

What does not keep to its format ends in a `FormatError` that names the file, the video, the field and the value.  Times
are seconds.  A video id is a name and never part of a path.  See docs/conventions.md.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import math
import os
import reprlib
import warnings
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks, _npy, _unpickle
from ._fields import StrPath, as_kind, as_limit, as_number, as_span, as_text, class_names, refuse, repeated
from ._files import atomic_write
from ._tcam_files import MAX_NPZ_BYTES, TcamReader, npz_annotations, open_tcams, read_tcams, text_array, write_tcams
from .types import Annotations, FormatError, MissingExtraError, Segments, Unit

__all__ = [
    "TcamReader",
    "from_actionformer",
    "from_dataframe",
    "open_tcams",
    "read_annotations",
    "read_detections",
    "read_tcams",
    "read_wtalc_annotations",
    "to_actionformer",
    "to_dataframe",
    "write_annotations",
    "write_detections",
    "write_tcams",
]

MAX_JSON_BYTES = 256 << 20  # 1,000,000 detections take about 90 MiB

_AMBIGUOUS = "Ambiguous"  # the label that some THUMOS14 files give to spans which do not count


# ---- small helpers


def _named(segments: Segments, argument: str, unit: Unit | None = "second") -> Segments:
    """Segments in the unit that the format has, of videos with names."""
    if not isinstance(segments, Segments):
        raise TypeError(f"`{argument}` must be Segments, got {type(segments).__name__}")
    if unit is not None:
        segments.require_unit(unit, argument)
    if len(segments.video_ids) != segments.num_videos:
        raise ValueError(
            f"`{argument}` must name its videos (`video_ids`), got no names for {segments.num_videos} videos"
        )
    return segments


def _read_limited(path: StrPath, max_bytes: int) -> bytes:
    """A whole file, unpacked if it is gzip, unless that is more than `max_bytes`."""
    max_bytes = as_limit(max_bytes)
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            file: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
            data = file.read(max_bytes + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FormatError(f"{os.fspath(path)}: broken gzip: {error}") from None
    if len(data) > max_bytes:
        raise FormatError(f"{os.fspath(path)}: larger than {max_bytes} bytes; raise `max_bytes` if you trust it")
    return data


# ---- ActivityNet JSON


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise FormatError(f"the key {repeated(key for key, _ in pairs)!r:.80} stands twice in one dictionary")
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise FormatError(f"{name} is not a JSON number")


def _read_json(path: StrPath, max_bytes: int) -> dict[str, Any]:
    data = _read_limited(path, max_bytes)
    try:
        content = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{os.fspath(path)}: not usable as JSON: {error!s:.200}") from None
    made: dict[str, Any] = as_kind(content, dict, f"{os.fspath(path)}: the file")
    return made


def read_detections(
    path: StrPath,
    *,
    classes: Sequence[str] | None = None,
    unknown_labels: Literal["error", "drop"] = "error",
    max_bytes: int = MAX_JSON_BYTES,
) -> Segments:
    """Detections from a JSON file in ActivityNet's format.

    The file holds ``{"results": {video: [{"label", "score", "segment"}, ...]}}``; other keys (``version``,
    ``external_data``, CoLA's ``method``) are not looked at.  It may be packed with gzip.

    Parameters
    ----------
    path : str or path
        The file.
    classes : sequence of str, optional
        Names of the classes in the order of their indices, such as `Annotations.classes`.  Without it the labels in the
        file must be indices themselves: an order of names is never guessed, since another one gives another mAP.
    unknown_labels : {"error", "drop"}, default "error"
        What happens to a detection whose label is none of `classes`.  "drop" leaves it out, and one warning says how
        many there were of which labels: an evaluator would not count them either.
    max_bytes : int, default 256 MiB
        Largest size after unpacking.

    Returns
    -------
    Segments
        In seconds, videos and rows in the order of the file.

    Raises
    ------
    FormatError
        If the file is larger than `max_bytes`, is not JSON (NaN, Infinity and repeated keys are refused), or if a field
        is missing, of the wrong type, not finite, or a label is none of `classes` (and not to be dropped).
    ValueError
        If `unknown_labels` is "drop" without `classes`.

    See Also
    --------
    write_detections : the way back.
    read_annotations : ground truth and the names of the classes.

    Examples
    --------
    >>> import os, tempfile
    >>> found = Segments([[1.5, 4]], [1], [0.7], unit="second", video_ids=["v"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_detections(os.path.join(folder, "d.json"), found, classes=["Diving", "LongJump"])
    ...     back = read_detections(os.path.join(folder, "d.json"), classes=["Diving", "LongJump"])
    >>> back.segments.tolist(), back.labels.tolist(), back.scores.tolist(), back.video_ids
    ([[1.5, 4.0]], [1], [0.7], ('v',))
    """
    index = None if classes is None else {name: i for i, name in enumerate(class_names(classes))}
    drop = _checks.as_choice(unknown_labels, "unknown_labels", ("error", "drop")) == "drop"
    if drop and index is None:
        raise ValueError("`unknown_labels` 'drop' needs `classes`: without names, every label is an index")
    content = _read_json(path, max_bytes)
    name = os.fspath(path)
    if "results" not in content:
        refuse(f"{name}: the file", "must have the key 'results'", sorted(content))
    results = as_kind(content["results"], dict, f"{name}: `results`")
    spans: list[tuple[float, float]] = []
    labels: list[int] = []
    scores: list[float] = []
    offsets = [0]
    dropped: Counter[str] = Counter()
    for video, rows in results.items():
        where = f"{name}: video {as_text(video, f'{name}: a video id')!r}"
        for row in as_kind(rows, list, where):
            missing = {"label", "score", "segment"} - as_kind(row, dict, f"{where}: a detection").keys()
            if missing:
                refuse(f"{where}: a detection", f"must have {sorted(missing)}", row)
            span, score = as_span(row["segment"], f"{where}: `segment`"), as_number(row["score"], f"{where}: `score`")
            if drop and index is not None and isinstance(row["label"], str) and row["label"] not in index:
                dropped[row["label"]] += 1
                continue
            labels.append(_as_class(row["label"], index, f"{where}: `label`"))
            spans.append(span)
            scores.append(score)
        offsets.append(len(spans))
    if dropped:
        shown = ", ".join(f"{reprlib.repr(label)} ({count})" for label, count in dropped.most_common(5))
        warnings.warn(
            f"{name}: {dropped.total()} of {len(spans) + dropped.total()} detections are left out, their labels are "
            f"none of the {len(index or ())} classes: {shown}{', ...' if len(dropped) > 5 else ''}",
            stacklevel=2,
        )
    return Segments(np.array(spans).reshape(-1, 2), labels, scores, offsets, "second", tuple(results))


def _as_class(label: Any, index: Mapping[str, int] | None, where: str) -> int:
    """Class index of a name, or of an index where no names are given."""
    if index is None:
        if type(label) is not int or not 0 <= label < 2**31:
            refuse(where, "must be a class index, or `classes` must be given", label)
        return label
    if not isinstance(label, str) or label not in index:
        refuse(where, f"must be one of the {len(index)} classes", label)
    return index[label]


def write_detections(
    path: StrPath,
    detections: Segments,
    *,
    classes: Sequence[str],
    method: str | None = None,
    version: str = "VERSION 1.3",
    external_data: Mapping[str, Any] | None = None,
) -> None:
    """Write detections as JSON in ActivityNet's format, whole or not at all.

    Numbers are written so that they read back to the same bits.  The file is written beside its place and renamed: when
    anything fails, an older file is still there and nothing else is left.

    Parameters
    ----------
    path : str or path
        The file.
    detections : Segments
        In seconds, with `video_ids`.  Extra columns are not written.
    classes : sequence of str
        Names of the labels, in the order of their indices.
    method : str, optional
        Write the keys ``method`` and ``results`` that CoLA's evaluator reads, instead of ``version``, ``results`` and
        ``external_data``.
    version : str, default "VERSION 1.3"
        The data set's version.
    external_data : mapping, optional
        What ActivityNet's challenge asks for; default empty.

    Raises
    ------
    UnitError, ValueError
        If `detections` are not in seconds, do not name their videos, or have a label without a name.

    Examples
    --------
    >>> import os, tempfile
    >>> found = Segments([[1, 4]], scores=[0.7], unit="second", video_ids=["v"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_detections(os.path.join(folder, "d.json"), found, classes=["Diving"], method="ours")
    ...     print(Path(folder, "d.json").read_text(), end="")
    {"method": "ours", "results": {
    "v": [{"label": "Diving", "score": 0.7, "segment": [1.0, 4.0]}]
    }}
    """
    names = class_names(classes)
    _named(detections, "detections")
    _checks.as_labels(detections.labels, len(detections), "detections.labels", num_classes=len(names))
    if method is None:
        head, tail = {"version": version}, {"external_data": dict(external_data or {})}
    else:
        head, tail = {"method": method}, {}
    quoted = [_dump(name) for name in names]
    bounds = zip(detections.video_ids, detections.offsets[:-1].tolist(), detections.offsets[1:].tolist())
    with atomic_write(path) as file:
        file.write(_dump(head)[:-1] + ', "results": {')
        for position, (video, start, stop) in enumerate(bounds):
            columns = (column[start:stop].tolist() for column in (detections.labels, detections.scores))
            rows = [  # what json.dumps writes, in two thirds of its time
                f'{{"label": {quoted[label]}, "score": {score!r}, "segment": [{begin!r}, {end!r}]}}'
                for label, score, (begin, end) in zip(*columns, detections.segments[start:stop].tolist())
            ]
            file.write(f"{',' if position else ''}\n{_dump(video)}: [{', '.join(rows)}]")
        file.write("\n}" + (", " + _dump(tail)[1:] if tail else "}") + "\n")


def merge_detections(path: StrPath, parts: Sequence[StrPath]) -> None:
    """Files of `write_detections` with its defaults as one: the bytes that it writes for all their videos."""
    head, tail = b'{"version": "VERSION 1.3", "results": {', b'\n}, "external_data": {}}\n'
    with atomic_write(path, "wb") as file:
        file.write(head)
        some = False
        for part in parts:
            with open(part, "rb") as one:
                left = os.fstat(one.fileno()).st_size - len(head) - len(tail)
                if left < 0 or one.read(len(head)) != head:
                    refuse(os.fspath(part), "must begin like a file of detections", os.fspath(part))
                if some and left:
                    file.write(b",")
                some = some or left > 0
                while left:
                    chunk = one.read(min(left, 1 << 20))
                    file.write(chunk)
                    left -= len(chunk)
                if one.read() != tail:
                    refuse(os.fspath(part), "must end like a file of detections", os.fspath(part))
        file.write(tail)


def _dump(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


# ---- ground truth


@dataclass
class _Record:
    """Ground truth of one video, as some file has it."""

    id: str
    subset: str = ""
    duration: float = math.nan
    spans: list[tuple[float, float]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    ambiguous: list[tuple[float, float]] = field(default_factory=list)


def _assemble(
    name: str,
    records: list[_Record],
    own_classes: Sequence[str],
    subset: str | None,
    classes: Sequence[str] | None,
    has_ambiguous: bool,
) -> Annotations:
    """Records of one subset as annotations, with the file's own order of classes or the caller's."""
    if subset is not None:
        known = sorted({record.subset for record in records})
        if subset not in known:
            raise ValueError(f"`subset` must be one of {reprlib.repr(known)} in {name}, got {subset!r}")
        records = [record for record in records if record.subset == subset]
    ids = [record.id for record in records]
    if (twice := repeated(ids)) is not None:
        raise FormatError(f"{name}: video {twice!r} stands {ids.count(twice)} times")
    names = class_names(own_classes if classes is None else classes)
    index = {label: i for i, label in enumerate(names)}
    labels = [
        _as_class(label, index, f"{name}: video {record.id!r}: `label`")
        for record in records
        for label in record.labels
    ]

    def flat(spans: list[list[tuple[float, float]]], labels: list[int] | None) -> Segments:
        rows = np.array([span for video in spans for span in video]).reshape(-1, 2)
        return Segments(rows, labels, None, np.cumsum([0, *map(len, spans)]), "second", ids)

    return Annotations(
        flat([record.spans for record in records], labels),
        names,
        np.array([record.duration for record in records]),
        tuple(record.subset for record in records),
        flat([record.ambiguous for record in records], None) if has_ambiguous else None,
    )


def _chosen(truth: Annotations, name: str, subset: str | None, classes: Sequence[str] | None) -> Annotations:
    """Some of the videos, or other classes."""
    if subset is None and classes is None:
        return truth
    spare = truth.ambiguous
    records = [
        _Record(
            video,
            truth.subsets[row],
            float(truth.durations[row]),
            list(map(tuple, truth.segments.video(row).segments.tolist())),
            [truth.classes[label] for label in truth.segments.video(row).labels.tolist()],
            [] if spare is None else list(map(tuple, spare.video(row).segments.tolist())),
        )
        for row, video in enumerate(truth.video_ids)
    ]
    return _assemble(name, records, truth.classes, subset, classes, spare is not None)


def read_annotations(
    path: StrPath,
    *,
    subset: str | None = None,
    classes: Sequence[str] | None = None,
    max_bytes: int | None = None,
) -> Annotations:
    """Ground truth from whatever `path` is: ActivityNet JSON, an npz of TCAMs, or a W-TALC folder.

    The JSON holds ``{"database": {video: {"subset", "duration", "annotations": [{"segment", "label"}, ...]}}}`` and may
    be packed with gzip; numbers may be written as text, as THUMOS14 files have them.  Instances labelled
    ``"Ambiguous"`` become ambiguous spans, unless `classes` has that name.  The leaves of ``taxonomy``, a list of
    ``{"nodeName", "nodeId", "parentName", "parentId"}``, are classes too, whether they have an instance or not.

    Parameters
    ----------
    path : str or path
        A folder is read as `read_wtalc_annotations` does, a name that ends in ``.npz`` as the ground truth that
        `read_tcams` finds, everything else as JSON.
    subset : str, optional
        Keep the videos of this part of the data set, ``"validation"`` say.  Default: all of them.
    classes : sequence of str, optional
        Names of the classes in the order of their indices.  Default: the order of the file.  JSON has one where a flat
        taxonomy (a root and its children, as `write_annotations` writes it) names the label of every instance; all
        other JSON, ActivityNet 1.3 included, gives all names in the file, whatever the subset, in alphabetical order.
        With `classes`, the taxonomy is not looked at.
    max_bytes : int, optional
        Largest size after unpacking; default 256 MiB for JSON, 16 GiB for an npz, 16 MiB per file of a folder.

    Returns
    -------
    Annotations
        In seconds, videos in the order of the file.  Videos without an instance stay; whether they count is the
        evaluator's choice.

    Raises
    ------
    FormatError
        If the file is not what it should be; the message names video, field and value.
    ValueError
        If no video belongs to `subset`.

    Notes
    -----
    Nothing is repaired.  Instances that end after the video does, or that have no length, are in the published files
    (30 and 0 in THUMOS14, some and 12 in ActivityNet 1.3) and are returned as they stand.

    Examples
    --------
    >>> import os, tempfile
    >>> truth = Annotations(Segments([[1, 2]], unit="second", video_ids=["v"]), ["Diving"], [30.0], ["test"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_annotations(os.path.join(folder, "gt.json"), truth)
    ...     back = read_annotations(os.path.join(folder, "gt.json"), subset="test")
    >>> back, back.segments.segments.tolist(), back.durations.tolist()
    (<Annotations: 1 instances of 1 classes in 1 videos>, [[1.0, 2.0]], [30.0])
    """
    if Path(path).is_dir():
        limit = _unpickle.MAX_BYTES if max_bytes is None else max_bytes
        return read_wtalc_annotations(path, subset=subset, classes=classes, max_bytes=limit)
    if os.fspath(path).endswith(".npz"):
        with _npy.NpzReader(path, MAX_NPZ_BYTES if max_bytes is None else as_limit(max_bytes)) as npz:
            truth = npz_annotations(npz)
        return _chosen(truth, os.fspath(path), subset, classes)
    name = os.fspath(path)
    content = _read_json(path, MAX_JSON_BYTES if max_bytes is None else max_bytes)
    if "database" not in content:
        refuse(f"{name}: the file", "must have the key 'database'", sorted(content))
    database = as_kind(content["database"], dict, f"{name}: `database`")
    spared = "" if classes is not None and _AMBIGUOUS in classes else _AMBIGUOUS
    records = [_json_record(name, video, entry, spared) for video, entry in database.items()]
    own: list[str] = []
    if classes is None:
        seen = {label for record in records for label in record.labels}
        leaves, flat = _leaves(content.get("taxonomy"), f"{name}: `taxonomy`")
        leaves = [leaf for leaf in leaves if leaf != _AMBIGUOUS]
        own = leaves if flat and seen <= set(leaves) else sorted(seen.union(leaves))
    return _assemble(name, records, own, subset, classes, any(record.ambiguous for record in records))


def _taxonomy(classes: Sequence[str]) -> list[dict[str, Any]]:
    """A root and the classes below it, as nodes of ActivityNet's taxonomy."""
    root = {"parentName": None, "nodeName": "Root", "nodeId": 0, "parentId": None}
    nodes = [
        {"parentName": "Root", "nodeName": name, "nodeId": place, "parentId": 0}
        for place, name in enumerate(classes, 1)
    ]
    return [root, *nodes] if nodes else []


def _leaves(taxonomy: Any, where: str) -> tuple[list[str], bool]:
    """Names of the nodes without children in the order of the file, and whether one root holds all of them."""
    names: dict[int | str, str] = {}
    parents: list[int | str | None] = []
    for node in as_kind(taxonomy or [], list, where):
        missing = {"nodeName", "nodeId"} - as_kind(node, dict, f"{where}: a node").keys()
        if missing:
            refuse(f"{where}: a node", f"must have {sorted(missing)}", node)
        key, parent = node["nodeId"], node.get("parentId")
        if not isinstance(key, (int, str)) or key in names:
            refuse(f"{where}: `nodeId`", "must be a number or text that stands once", key)
        if not isinstance(parent, (int, str, type(None))):
            refuse(f"{where}: `parentId`", "must be a number, text, or null", parent)
        names[key] = as_text(node["nodeName"], f"{where}: `nodeName`")
        parents.append(parent)
    inner = set(parents)
    leaves = [name for key, name in names.items() if key not in inner]
    if (twice := repeated(leaves)) is not None:
        raise FormatError(f"{where}: the class {twice!r:.80} stands {leaves.count(twice)} times")
    above = {parent for key, parent in zip(names, parents) if key not in inner}
    return leaves, len(above) == 1 and above <= names.keys() and len(names) == len(leaves) + 1


def _json_record(name: str, video: str, entry: Any, ambiguous_label: str) -> _Record:
    """One entry of the database."""
    where = f"{name}: video {as_text(video, f'{name}: a video id')!r}"
    entry = as_kind(entry, dict, where)
    record = _Record(video, as_text(entry.get("subset", ""), f"{where}: `subset`"))
    if entry.get("duration") is not None:
        record.duration = as_number(entry["duration"], f"{where}: `duration`")
        if record.duration <= 0:
            refuse(f"{where}: `duration`", "must be above 0", entry["duration"])
    for row in as_kind(entry.get("annotations", []), list, f"{where}: `annotations`"):
        missing = {"segment", "label"} - as_kind(row, dict, f"{where}: an annotation").keys()
        if missing:
            refuse(f"{where}: an annotation", f"must have {sorted(missing)}", row)
        span, label = as_span(row["segment"], f"{where}: `segment`"), as_text(row["label"], f"{where}: `label`")
        if label == ambiguous_label:
            record.ambiguous.append(span)
        else:
            record.spans.append(span)
            record.labels.append(label)
    return record


def write_annotations(path: StrPath, annotations: Annotations, *, version: str = "VERSION 1.3") -> None:
    """Write ground truth as JSON in ActivityNet's format, whole or not at all.

    The classes are written as ``taxonomy``, a root with one child per class in the order of their indices; so
    `read_annotations` gives the same indices, also of classes without an instance.  Ambiguous spans are written as
    instances labelled ``"Ambiguous"``, and that name is read back as a class only where `classes` has it.

    Parameters
    ----------
    path : str or path
        The file.
    annotations : Annotations
        What to write.  Unknown durations and subsets are left out.
    version : str, default "VERSION 1.3"
        The data set's version.

    Raises
    ------
    ValueError
        If there are ambiguous spans and a class ``"Ambiguous"``: the format cannot tell them apart.

    Examples
    --------
    >>> import os, tempfile
    >>> truth = Annotations(Segments([[1, 2]], [1], unit="second", video_ids=["v"]), ["Polo", "Golf", "Judo"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_annotations(os.path.join(folder, "gt.json"), truth)
    ...     read_annotations(os.path.join(folder, "gt.json")).classes
    ('Polo', 'Golf', 'Judo')
    """
    if not isinstance(annotations, Annotations):
        raise TypeError(f"`annotations` must be Annotations, got {type(annotations).__name__}")
    spare = annotations.ambiguous
    if spare is not None and _AMBIGUOUS in annotations.classes:
        raise ValueError(
            f"`annotations` has ambiguous spans and a class {_AMBIGUOUS!r}; the format cannot tell them apart"
        )
    database: dict[str, dict[str, Any]] = {}
    for position, video in enumerate(annotations.segments.split()):
        entry: dict[str, Any] = {}
        if annotations.subsets[position]:
            entry["subset"] = annotations.subsets[position]
        if math.isfinite(annotations.durations[position]):
            entry["duration"] = float(annotations.durations[position])
        rows = [(s, annotations.classes[k]) for s, k in zip(video.segments.tolist(), video.labels.tolist())]
        rows += [] if spare is None else [(s, _AMBIGUOUS) for s in spare.video(position).segments.tolist()]
        entry["annotations"] = [{"segment": span, "label": label} for span, label in rows]
        database[video.video_ids[0]] = entry
    with atomic_write(path) as file:
        file.write(_dump({"version": version, "taxonomy": _taxonomy(annotations.classes), "database": database}) + "\n")


# ---- W-TALC annotation folder

_WTALC_FILES = ("videoname.npy", "subset.npy", "segments.npy", "labels.npy", "classlist.npy")


def _read_npy(folder: Path, stem: str, max_bytes: int, *, values: int | None = None) -> list[Any]:
    """The items of one .npy file as plain Python values; object arrays go through the restricted unpickler."""
    path = folder / f"{stem}.npy"
    data = _read_limited(path, max_bytes)
    file = io.BytesIO(data)
    header = _npy.read_header(file, str(path))
    shape = header[0]
    if header[2].hasobject:
        items = _unpickle.load_object_array(data[file.tell() :], shape, str(path))
    else:
        array = _npy.read_values(file, len(data) - file.tell(), header, str(path))
        if array.ndim == 2 and 1 in array.shape:  # duration.npy is a column
            array = array.ravel()
        items = np.atleast_1d(array).tolist()
    if values is not None and len(items) != values:
        raise FormatError(f"{path}: must have {values} items, one per video, got {len(items)}")
    return items


def read_wtalc_annotations(
    folder: StrPath,
    *,
    subset: str | None = "test",
    classes: Sequence[str] | None = None,
    max_bytes: int = _unpickle.MAX_BYTES,
) -> Annotations:
    """Ground truth from a folder in the layout of W-TALC (``Thumos14reduced-Annotations``).

    The folder holds ``videoname``, ``subset``, ``segments``, ``labels`` and ``classlist`` as ``.npy`` files, and
    perhaps ``duration.npy`` and lists ``Ambiguous_<subset>.txt`` with lines ``video  start end``.

    ``segments`` and ``labels`` are pickles.  They are read by an unpickler in which every name leads to a stand-in of
    ours: nothing in the file can run code, call a constructor, or ask for more memory than a multiple of its size.

    Parameters
    ----------
    folder : str or path
        The folder.
    subset : str or None, default "test"
        Keep the videos of this subset; None keeps all.
    classes : sequence of str, optional
        Names of the classes in the order of their indices.  Default: ``classlist.npy``.
    max_bytes : int, default 16 MiB
        Largest size of each file.

    Returns
    -------
    Annotations
        In seconds, videos in the order of the folder.  THUMOS14 has 212 test videos with 3,358 instances, and 200
        validation videos with 3,007; none is without instances.  (The ActivityNet JSON of THUMOS14 that others use has
        210 test videos with 3,311 instances.)  `ambiguous` is None where the folder has no such list.

    Raises
    ------
    FileNotFoundError
        If one of the five files is not there; the message names the folder and what it lacks.
    FormatError
        If a file is not what it should be; the message names file, video and value.
    """
    root = Path(folder)
    absent = [file for file in _WTALC_FILES if not (root / file).exists()]
    if absent:
        raise FileNotFoundError(
            errno.ENOENT, f"not a folder of W-TALC annotations, it has no {', '.join(absent)}", str(root.resolve())
        )
    ids = [as_text(video, f"{root / 'videoname.npy'}: a name") for video in _read_npy(root, "videoname", max_bytes)]
    count = len(ids)
    subsets = _read_npy(root, "subset", max_bytes, values=count)
    spans = _read_npy(root, "segments", max_bytes, values=count)
    labels = _read_npy(root, "labels", max_bytes, values=count)
    own = [as_text(name, f"{root / 'classlist.npy'}: a name") for name in _read_npy(root, "classlist", max_bytes)]
    durations = _read_npy(root, "duration", max_bytes, values=count) if (root / "duration.npy").exists() else None
    ambiguous = _ambiguous_spans(root, max_bytes)
    records = []
    for row, video in enumerate(ids):
        where = f"{root / 'segments.npy'}: video {video!r}"
        these = [as_span(span, f"{where}: a segment") for span in as_kind(spans[row], list, where)]
        where = f"{root / 'labels.npy'}: video {video!r}"
        names = [as_text(label, f"{where}: a label") for label in as_kind(labels[row], list, where)]
        if len(names) != len(these):
            raise FormatError(f"{where} must have one label per segment ({len(these)}), got {len(names)}")
        record = _Record(
            video, as_text(subsets[row], f"{root / 'subset.npy'}: video {video!r}"), spans=these, labels=names
        )
        if durations is not None:
            record.duration = as_number(durations[row], f"{root / 'duration.npy'}: video {video!r}")
            if record.duration <= 0:
                refuse(f"{root / 'duration.npy'}: video {video!r}", "must be above 0", record.duration)
        record.ambiguous = (ambiguous or {}).get(video, [])
        records.append(record)
    return _assemble(str(root), records, own, subset, classes, ambiguous is not None)


def _ambiguous_spans(root: Path, max_bytes: int) -> dict[str, list[tuple[float, float]]] | None:
    """Spans by video from all lists in the folder; None where there is none."""
    paths = sorted(root.glob("Ambiguous_*.txt"))
    spans: dict[str, list[tuple[float, float]]] = {}
    for path in paths:
        lines = _read_limited(path, max_bytes).decode("utf-8", "replace").splitlines()
        for number, line in enumerate(lines, 1):
            fields = line.split()  # two spaces follow the name
            if fields and len(fields) != 3:
                refuse(f"{path}: line {number}", "must read 'video start end'", line)
            if fields:
                spans.setdefault(fields[0], []).append(as_span(fields[1:], f"{path}: line {number}"))
    return spans if paths else None


# ---- columns: ActionFormer's dict and pandas

_COLUMNS = ("video-id", "t-start", "t-end", "label", "score")


def to_actionformer(detections: Segments) -> dict[str, NDArray[Any]]:
    """Detections as the dictionary of arrays that ActionFormer's and OpenTAD's evaluators take.

    Parameters
    ----------
    detections : Segments
        In seconds, with `video_ids`.  Videos without rows and extra columns do not show in this format.

    Returns
    -------
    dict
        ``"video-id"`` (N,) text, ``"t-start"`` and ``"t-end"`` (N,) float64 in seconds, ``"label"`` (N,) int64 and
        ``"score"`` (N,) float64, rows in the order of `detections`.

    See Also
    --------
    from_actionformer : the way back.

    Examples
    --------
    >>> table = to_actionformer(Segments([[1, 4], [6, 7]], [0, 2], [0.9, 0.4], unit="second", video_ids=["v"]))
    >>> table["video-id"].tolist(), table["t-end"].tolist(), table["label"].tolist()
    (['v', 'v'], [4.0, 7.0], [0, 2])
    """
    _named(detections, "detections")
    return _columns_of(detections)


def _columns_of(segments: Segments) -> dict[str, NDArray[Any]]:
    return {
        "video-id": text_array(segments.video_ids, "video_ids")[segments.video_index],
        "t-start": segments.segments[:, 0].copy(),
        "t-end": segments.segments[:, 1].copy(),
        "label": segments.labels.copy(),
        "score": segments.scores.copy(),
    }


def from_actionformer(results: Mapping[str, ArrayLike], *, video_ids: Sequence[str] | None = None) -> Segments:
    """Detections from ActionFormer's dictionary of arrays.

    Parameters
    ----------
    results : mapping
        With ``"video-id"`` (N,) names, ``"t-start"``, ``"t-end"`` (N,) seconds, ``"label"`` (N,) class indices and
        ``"score"`` (N,); arrays, lists or CPU tensors.  Other keys are not looked at.
    video_ids : sequence of str, optional
        The videos and their order, those without rows included.  Default: as they first appear.

    Returns
    -------
    Segments
        In seconds, grouped by video; within a video the rows keep their order.

    Raises
    ------
    FormatError
        If a key is missing, a row names none of `video_ids`, or numbers are not what they should be.

    Examples
    --------
    >>> found = from_actionformer({"video-id": ["b", "a", "b"], "t-start": [0, 1, 2], "t-end": [1, 2, 3],
    ...                            "label": [0, 0, 1], "score": [0.5, 0.6, 0.7]})
    >>> found.video_ids, found.scores.tolist()
    (('b', 'a'), [0.5, 0.7, 0.6])
    """
    if not isinstance(results, Mapping):
        raise TypeError(f"`results` must be a mapping of names to arrays, got {type(results).__name__}")
    missing = [name for name in _COLUMNS if name not in results]
    if missing:
        refuse("`results`", f"must have the keys {missing}", sorted(map(str, results)))
    return _grouped({name: results[name] for name in _COLUMNS}, {}, "second", video_ids, "results")


def _grouped(
    columns: Mapping[str, ArrayLike],
    extra: Mapping[str, NDArray[Any]],
    unit: Unit,
    video_ids: Sequence[str] | None,
    argument: str,
) -> Segments:
    """Rows of any order as segments grouped by video."""
    names = [as_text(name, f"`{argument}['video-id']`") for name in np.asarray(columns["video-id"]).ravel().tolist()]
    ids = tuple(dict.fromkeys(names)) if video_ids is None else tuple(map(str, video_ids))
    place = {name: row for row, name in enumerate(ids)}
    for row, name in enumerate(names):
        if name not in place:
            refuse(f"`{argument}['video-id']`", f"must be one of the {len(ids)} `video_ids` (row {row})", name)
    video = np.array([place[name] for name in names], np.int64)
    order = np.argsort(video, kind="stable")
    n = len(names)
    try:
        start, end, score = (
            _checks.as_values(columns[key], n, key, per="row") for key in ("t-start", "t-end", "score")
        )
        return Segments(
            np.stack([start, end], axis=1)[order],
            _checks.as_labels(columns["label"], n, "label")[order],
            score[order],
            np.searchsorted(video[order], np.arange(len(ids) + 1)),
            unit,
            ids,
            {name: value[order] for name, value in extra.items()},
        )
    except (TypeError, ValueError) as error:
        raise FormatError(f"`{argument}`: {error}") from None


def to_dataframe(segments: Segments, *, classes: Sequence[str] | None = None) -> Any:
    """Segments as a pandas table with the column names of ActivityNet's evaluators.

    Parameters
    ----------
    segments : Segments
        In any unit, with `video_ids`.
    classes : sequence of str, optional
        Write these names instead of class indices.

    Returns
    -------
    pandas.DataFrame
        Columns ``video-id``, ``t-start``, ``t-end``, ``label``, ``score`` and the extra columns, one row per segment in
        the order of `segments`; ``attrs["unit"]`` is the unit.

    Raises
    ------
    MissingExtraError
        If pandas is not installed.

    See Also
    --------
    from_dataframe : the way back.
    """
    try:
        import pandas
    except ImportError:
        raise MissingExtraError("pandas", "pandas", "to_dataframe") from None
    columns: dict[str, Any] = _columns_of(_named(segments, "segments", unit=None))
    if classes is not None:
        names = class_names(classes)
        _checks.as_labels(segments.labels, len(segments), "segments.labels", num_classes=len(names))
        columns["label"] = [names[label] for label in segments.labels.tolist()]
    for name, column in segments.columns.items():
        if name in columns or column.ndim != 1:
            raise ValueError(
                f"`segments.columns[{name!r}]` must be (N,) and have a name of its own, got {column.shape}"
            )
        columns[name] = column
    frame = pandas.DataFrame(columns)
    frame.attrs["unit"] = segments.unit
    return frame


def from_dataframe(
    frame: Any,
    *,
    unit: Unit | None = None,
    classes: Sequence[str] | None = None,
    video_ids: Sequence[str] | None = None,
) -> Segments:
    """Segments from a pandas table.

    Parameters
    ----------
    frame : pandas.DataFrame
        With the columns ``video-id``, ``t-start``, ``t-end``, ``label`` and perhaps ``score`` (default 1); all others
        become extra columns.
    unit : {"snippet", "second", "relative"}, optional
        Default ``frame.attrs["unit"]``, else seconds.
    classes : sequence of str, optional
        Names of the classes, where ``label`` holds names.
    video_ids : sequence of str, optional
        The videos and their order, those without rows included.  Default: as they first appear.

    Returns
    -------
    Segments
        Grouped by video; within a video the rows keep their order.

    Raises
    ------
    FormatError
        If a column is missing or does not hold what it should.
    """
    if not hasattr(frame, "columns"):
        raise TypeError(f"`frame` must be a pandas.DataFrame, got {type(frame).__name__}")
    missing = [name for name in _COLUMNS[:4] if name not in frame]
    if missing:
        refuse("`frame`", f"must have the columns {missing}", [str(name) for name in frame.columns])
    unit = getattr(frame, "attrs", {}).get("unit", "second") if unit is None else unit
    columns: dict[str, Any] = {name: frame[name].to_numpy() for name in _COLUMNS if name in frame}
    columns.setdefault("score", np.ones(len(frame)))
    if classes is not None:
        index = {name: row for row, name in enumerate(class_names(classes))}
        columns["label"] = [_as_class(label, index, "`frame['label']`") for label in columns["label"].tolist()]
    extra = {str(name): frame[name].to_numpy() for name in frame.columns if name not in _COLUMNS}
    return _grouped(columns, extra, unit, video_ids, "frame")
