"""Files and tables that other codebases use: read with suspicion, written whole or not at all.

=====================  =============================================  =======================================
ActivityNet JSON       `read_detections`, `read_annotations`          `write_detections`, `write_annotations`
npz of TCAMs           `read_tcams` (`read_annotations` for truth)    `write_tcams`
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
import re
import reprlib
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks, _npy, _unpickle
from ._files import atomic_write
from .types import Annotations, FormatError, MissingExtraError, Segments, Unit, Video, Videos

__all__ = [
    "from_actionformer",
    "from_dataframe",
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

StrPath = str | os.PathLike[str]
MAX_JSON_BYTES = 256 << 20  # 1,000,000 detections take about 90 MiB
MAX_NPZ_BYTES = 16 << 30

_AMBIGUOUS = "Ambiguous"  # the label that some THUMOS14 files give to spans which do not count
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")


# ---- small helpers


def _refuse(where: str, rule: str, value: Any) -> NoReturn:
    raise FormatError(f"{where} {rule}, got {reprlib.repr(value)}")


def _as_number(value: Any, where: str) -> float:
    """A finite float; THUMOS14 files also write numbers as text."""
    if type(value) is str and _NUMBER.fullmatch(value):
        value = float(value)
    if type(value) is int and -(2**63) <= value < 2**63:
        value = float(value)
    if type(value) is not float or not math.isfinite(value):
        _refuse(where, "must be a finite number", value)
    return value


def _as_span(value: Any, where: str) -> tuple[float, float]:
    """Finite [start, end] with start <= end."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        _refuse(where, "must be a list [start, end]", value)
    start, end = _as_number(value[0], where), _as_number(value[1], where)
    if start > end:
        _refuse(where, "needs start <= end", value)
    return start, end


def _as_text(value: Any, where: str) -> str:
    """Text that can be written out again: no lone surrogates, no NUL."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str) or _NO_TEXT.search(value):
        _refuse(where, "must be text", value)
    return str(value)


def _as_kind(value: Any, kind: type, where: str) -> Any:
    """A list or a dict."""
    if not isinstance(value, kind):
        _refuse(where, f"must be a {'list' if kind is list else 'dictionary'}", value)
    return value


def _repeated(names: Iterable[str]) -> str | None:
    """The first name that stands a second time."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _class_names(classes: Sequence[str]) -> tuple[str, ...]:
    if isinstance(classes, (str, bytes)) or not isinstance(classes, Iterable):
        raise TypeError(f"`classes` must be a sequence of names, got {classes!r:.80}")
    names = tuple(map(str, classes))
    if (twice := _repeated(names)) is not None:
        raise ValueError(f"`classes` must differ, {twice!r} stands {names.count(twice)} times")
    return names


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


def _as_limit(max_bytes: Any) -> int:
    """A number of bytes, at least 1; it may well be more than anything that is counted."""
    if isinstance(max_bytes, (bool, np.bool_)) or not hasattr(max_bytes, "__index__"):
        raise TypeError(f"`max_bytes` must be a whole number, got {max_bytes!r:.80}")
    if int(max_bytes) < 1:
        raise ValueError(f"`max_bytes` must be at least 1, got {int(max_bytes)}")
    return int(max_bytes)


def _read_limited(path: StrPath, max_bytes: int) -> bytes:
    """A whole file, unpacked if it is gzip, unless that is more than `max_bytes`."""
    max_bytes = _as_limit(max_bytes)
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
        raise FormatError(f"the key {_repeated(key for key, _ in pairs)!r:.80} stands twice in one dictionary")
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise FormatError(f"{name} is not a JSON number")


def _read_json(path: StrPath, max_bytes: int) -> dict[str, Any]:
    data = _read_limited(path, max_bytes)
    try:
        content = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{os.fspath(path)}: not usable as JSON: {error!s:.200}") from None
    made: dict[str, Any] = _as_kind(content, dict, f"{os.fspath(path)}: the file")
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
    index = None if classes is None else {name: i for i, name in enumerate(_class_names(classes))}
    drop = _checks.as_choice(unknown_labels, "unknown_labels", ("error", "drop")) == "drop"
    if drop and index is None:
        raise ValueError("`unknown_labels` 'drop' needs `classes`: without names, every label is an index")
    content = _read_json(path, max_bytes)
    name = os.fspath(path)
    if "results" not in content:
        _refuse(f"{name}: the file", "must have the key 'results'", sorted(content))
    results = _as_kind(content["results"], dict, f"{name}: `results`")
    spans: list[tuple[float, float]] = []
    labels: list[int] = []
    scores: list[float] = []
    offsets = [0]
    dropped: Counter[str] = Counter()
    for video, rows in results.items():
        where = f"{name}: video {_as_text(video, f'{name}: a video id')!r}"
        for row in _as_kind(rows, list, where):
            missing = {"label", "score", "segment"} - _as_kind(row, dict, f"{where}: a detection").keys()
            if missing:
                _refuse(f"{where}: a detection", f"must have {sorted(missing)}", row)
            span, score = _as_span(row["segment"], f"{where}: `segment`"), _as_number(row["score"], f"{where}: `score`")
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
            _refuse(where, "must be a class index, or `classes` must be given", label)
        return label
    if not isinstance(label, str) or label not in index:
        _refuse(where, f"must be one of the {len(index)} classes", label)
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
    names = _class_names(classes)
    _named(detections, "detections")
    _checks.as_labels(detections.labels, len(detections), "detections.labels", num_classes=len(names))
    if method is None:
        head, tail = {"version": version}, {"external_data": dict(external_data or {})}
    else:
        head, tail = {"method": method}, {}
    with atomic_write(path) as file:
        file.write(_dump(head)[:-1] + ', "results": {')
        for position, video in enumerate(detections.split()):
            rows = [
                {"label": names[label], "score": score, "segment": segment}
                for label, score, segment in zip(video.labels.tolist(), video.scores.tolist(), video.segments.tolist())
            ]
            file.write(f"{',' if position else ''}\n{_dump(video.video_ids[0])}: {_dump(rows)}")
        file.write("\n}" + (", " + _dump(tail)[1:] if tail else "}") + "\n")


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
    if (twice := _repeated(ids)) is not None:
        raise FormatError(f"{name}: video {twice!r} stands {ids.count(twice)} times")
    names = _class_names(own_classes if classes is None else classes)
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
        with _npy.NpzReader(path, MAX_NPZ_BYTES if max_bytes is None else _as_limit(max_bytes)) as npz:
            return _npz_annotations(npz, subset, classes)
    name = os.fspath(path)
    content = _read_json(path, MAX_JSON_BYTES if max_bytes is None else max_bytes)
    if "database" not in content:
        _refuse(f"{name}: the file", "must have the key 'database'", sorted(content))
    database = _as_kind(content["database"], dict, f"{name}: `database`")
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
    for node in _as_kind(taxonomy or [], list, where):
        missing = {"nodeName", "nodeId"} - _as_kind(node, dict, f"{where}: a node").keys()
        if missing:
            _refuse(f"{where}: a node", f"must have {sorted(missing)}", node)
        key, parent = node["nodeId"], node.get("parentId")
        if not isinstance(key, (int, str)) or key in names:
            _refuse(f"{where}: `nodeId`", "must be a number or text that stands once", key)
        if not isinstance(parent, (int, str, type(None))):
            _refuse(f"{where}: `parentId`", "must be a number, text, or null", parent)
        names[key] = _as_text(node["nodeName"], f"{where}: `nodeName`")
        parents.append(parent)
    inner = set(parents)
    leaves = [name for key, name in names.items() if key not in inner]
    if (twice := _repeated(leaves)) is not None:
        raise FormatError(f"{where}: the class {twice!r:.80} stands {leaves.count(twice)} times")
    above = {parent for key, parent in zip(names, parents) if key not in inner}
    return leaves, len(above) == 1 and above <= names.keys() and len(names) == len(leaves) + 1


def _json_record(name: str, video: str, entry: Any, ambiguous_label: str) -> _Record:
    """One entry of the database."""
    where = f"{name}: video {_as_text(video, f'{name}: a video id')!r}"
    entry = _as_kind(entry, dict, where)
    record = _Record(video, _as_text(entry.get("subset", ""), f"{where}: `subset`"))
    if entry.get("duration") is not None:
        record.duration = _as_number(entry["duration"], f"{where}: `duration`")
        if record.duration <= 0:
            _refuse(f"{where}: `duration`", "must be above 0", entry["duration"])
    for row in _as_kind(entry.get("annotations", []), list, f"{where}: `annotations`"):
        missing = {"segment", "label"} - _as_kind(row, dict, f"{where}: an annotation").keys()
        if missing:
            _refuse(f"{where}: an annotation", f"must have {sorted(missing)}", row)
        span, label = _as_span(row["segment"], f"{where}: `segment`"), _as_text(row["label"], f"{where}: `label`")
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
    ids = [_as_text(video, f"{root / 'videoname.npy'}: a name") for video in _read_npy(root, "videoname", max_bytes)]
    count = len(ids)
    subsets = _read_npy(root, "subset", max_bytes, values=count)
    spans = _read_npy(root, "segments", max_bytes, values=count)
    labels = _read_npy(root, "labels", max_bytes, values=count)
    own = [_as_text(name, f"{root / 'classlist.npy'}: a name") for name in _read_npy(root, "classlist", max_bytes)]
    durations = _read_npy(root, "duration", max_bytes, values=count) if (root / "duration.npy").exists() else None
    ambiguous = _ambiguous_spans(root, max_bytes)
    records = []
    for row, video in enumerate(ids):
        where = f"{root / 'segments.npy'}: video {video!r}"
        these = [_as_span(span, f"{where}: a segment") for span in _as_kind(spans[row], list, where)]
        where = f"{root / 'labels.npy'}: video {video!r}"
        names = [_as_text(label, f"{where}: a label") for label in _as_kind(labels[row], list, where)]
        if len(names) != len(these):
            raise FormatError(f"{where} must have one label per segment ({len(these)}), got {len(names)}")
        record = _Record(
            video, _as_text(subsets[row], f"{root / 'subset.npy'}: video {video!r}"), spans=these, labels=names
        )
        if durations is not None:
            record.duration = _as_number(durations[row], f"{root / 'duration.npy'}: video {video!r}")
            if record.duration <= 0:
                _refuse(f"{root / 'duration.npy'}: video {video!r}", "must be above 0", record.duration)
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
                _refuse(f"{path}: line {number}", "must read 'video start end'", line)
            if fields:
                spans.setdefault(fields[0], []).append(_as_span(fields[1:], f"{path}: line {number}"))
    return spans if paths else None


# ---- npz of TCAMs

_MAP_NAMES = {"tcam": "cas"}  # name in the file -> name that presets look for
_KNOWN_MAPS = frozenset({"tcam", "cas", "attention", "actionness", "logits"})  # never left alone where they do not fit
_RESERVED = frozenset(
    "names offsets duration seconds_per_snippet classes subset map_names score_names gt_offsets gt_segments "  # noqa: SIM905
    "gt_labels gt_duration amb_offsets amb_segments warp_offsets warp_knots warp_times".split()
)
_REAL = "fiub"  # kinds of dtype
_ARRAY_NAME = re.compile(r"[\w.-]{1,100}")


def _refuse_array(npz: _npy.NpzReader, name: str, rule: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NoReturn:
    _refuse(f"{npz.path}: `{name:.80}`", rule, f"{dtype} of shape {shape}")


def _npz_text(npz: _npy.NpzReader, name: str) -> tuple[str, ...]:
    """A one-dimensional array of text."""
    where = f"{npz.path}: `{name}`"
    array = npz.read(name)
    if array.ndim != 1 or (array.dtype.kind not in "SU" and array.size):
        _refuse(where, "must be a list of names", f"{array.dtype} of shape {array.shape}")
    names = tuple(_as_text(item, where) for item in array.tolist())
    if name != "subset" and (twice := _repeated(names)) is not None:
        raise FormatError(f"{where} must differ, {twice!r} stands {names.count(twice)} times")
    return names


def _npz_numbers(npz: _npy.NpzReader, name: str, count: int) -> NDArray[np.float64]:
    """(N,) numbers per video, above 0 or NaN (not known); all NaN where the file has no such array."""
    if name not in npz:
        return np.full(count, np.nan)
    array = npz.read(name)
    if array.shape != (count,) or array.dtype.kind not in "fiu":
        _refuse(f"{npz.path}: `{name}`", f"must be {count} numbers", f"{array.dtype} of shape {array.shape}")
    numbers = array.astype(np.float64)
    bad = np.isinf(numbers) | (numbers <= 0)
    if bad.any():
        _refuse(f"{npz.path}: `{name}`", "must be finite and above 0 (or NaN: not known)", float(numbers[bad][0]))
    return numbers


def _npz_offsets(npz: _npy.NpzReader, name: str, count: int, rows: int | None) -> NDArray[np.int64]:
    """(N+1,) row bounds of the videos; `rows` is the number they end in, where that is known."""
    array = npz.read(name)
    if array.shape != (count + 1,) or array.dtype.kind not in "iu":
        _refuse(f"{npz.path}: `{name}`", f"must be {count + 1} whole numbers", f"{array.dtype} of shape {array.shape}")
    try:
        return _checks.as_offsets(array, int(array[-1]) if rows is None else rows, name)
    except ValueError as error:
        raise FormatError(f"{npz.path}: {error}") from None


def _npz_spans(npz: _npy.NpzReader, prefix: str, names: tuple[str, ...], labels: NDArray[Any] | None) -> Segments:
    """``<prefix>_segments`` and ``<prefix>_offsets`` as segments in seconds."""
    rows = npz.read(f"{prefix}_segments")
    try:
        return Segments(
            rows, labels, None, _npz_offsets(npz, f"{prefix}_offsets", len(names), len(rows)), "second", names
        )
    except FormatError:
        raise
    except (TypeError, ValueError) as error:
        raise FormatError(f"{npz.path}: `{prefix}_segments`: {error}") from None


def _npz_require(npz: _npy.NpzReader, *names: str) -> None:
    for name in names:
        if name not in npz:
            _refuse(f"{npz.path}: the file", f"must have an array {name!r}", sorted(npz.names))


def _npz_annotations(npz: _npy.NpzReader, subset: str | None, classes: Sequence[str] | None) -> Annotations:
    """Ground truth of an npz of TCAMs; the maps are not touched."""
    _npz_require(npz, "names", "gt_offsets", "gt_segments", "gt_labels")
    if "amb_segments" in npz or "amb_offsets" in npz:
        _npz_require(npz, "amb_segments", "amb_offsets")
    names = _npz_text(npz, "names")
    truth = _npz_spans(npz, "gt", names, npz.read("gt_labels"))
    own = (
        _npz_text(npz, "classes") if "classes" in npz else tuple(map(str, range(int(truth.labels.max(initial=-1)) + 1)))
    )
    if len(truth) and truth.labels.max() >= len(own):
        _refuse(
            f"{npz.path}: `gt_labels`", f"must lie below {len(own)}, the number of classes", int(truth.labels.max())
        )
    subsets = _npz_text(npz, "subset") if "subset" in npz else ("",) * len(names)
    if len(subsets) != len(names):
        _refuse(f"{npz.path}: `subset`", f"must have {len(names)} names", len(subsets))
    durations = _npz_numbers(npz, "gt_duration" if "gt_duration" in npz else "duration", len(names))
    spare = _npz_spans(npz, "amb", names, None) if "amb_segments" in npz else None
    if subset is None and classes is None:
        return Annotations(truth, own, durations, subsets, spare)
    records = [
        _Record(
            name,
            subsets[row],
            float(durations[row]),
            list(map(tuple, truth.video(row).segments.tolist())),
            [own[label] for label in truth.video(row).labels.tolist()],
            [] if spare is None else list(map(tuple, spare.video(row).segments.tolist())),
        )
        for row, name in enumerate(names)
    ]
    return _assemble(npz.path, records, own, subset, classes, spare is not None)


def _npz_roles(npz: _npy.NpzReader, rows: int, count: int) -> tuple[list[str], list[str]]:
    """Which arrays are maps and which are video-level scores: as the file says, else by their shapes."""
    if "map_names" in npz or "score_names" in npz:
        _npz_require(npz, "map_names", "score_names")
        maps, scores = list(_npz_text(npz, "map_names")), list(_npz_text(npz, "score_names"))
        _npz_require(npz, *maps, *scores)
        return maps, scores
    maps, scores, left = [], [], []
    for name in npz.names:
        shape, _, dtype = npz.header(name)
        only_map, only_scores = name in _KNOWN_MAPS, name == "video_scores"
        known = only_map or name.endswith("_scores")
        if name in _RESERVED or (not known and (dtype.kind != "f" or not shape or _is_ragged(npz, name))):
            continue
        fits = len(shape) in (1, 2) and dtype.kind in _REAL
        if fits and rows == count == shape[0]:
            raise FormatError(
                f"{npz.path}: array {name!r} of shape {shape} may be a map or hold video-level scores, since there"
                f" are as many videos as snippets ({rows}); add arrays 'map_names' and 'score_names' to the file"
            )
        if fits and shape[0] == rows and not only_scores:
            maps.append(name)
        elif fits and shape[0] == count and len(shape) == 2 and not only_map:
            scores.append(name)
        elif known:
            wanted = [] if only_scores else [f"({rows},) or ({rows}, K), one row per snippet"]
            wanted += [] if only_map else [f"({count}, K), one row per video"]
            _refuse_array(npz, name, f"must be real numbers of shape {', or '.join(wanted)}", shape, dtype)
        elif shape != (count,):
            left.append(f"{name!r:.80} {shape}")
    if rows and not maps:
        _refuse(f"{npz.path}: the file", f"must have a map, a floating-point array of {rows} rows", sorted(npz.names))
    if left:
        warnings.warn(
            f"{npz.path}: left alone, neither maps of {rows} rows (snippets) nor scores of {count} rows (videos): "
            f"{', '.join(left[:5])}{', ...' if len(left) > 5 else ''}",
            stacklevel=3,
        )
    _npz_widths(npz, maps, scores)
    return maps, scores


def _is_ragged(npz: _npy.NpzReader, name: str) -> bool:
    """Has the array row bounds of its own, as ``amb_segments`` has ``amb_offsets``?"""
    return any(f"{name[:end]}_offsets" in npz for end in range(1, len(name)) if name[end] == "_")


def _npz_widths(npz: _npy.NpzReader, maps: list[str], scores: list[str]) -> None:
    """Are video-level scores and class names as many as the class map has columns, give or take a background?"""
    class_map = next((name for name in maps if name in ("tcam", "cas") and len(npz.header(name)[0]) == 2), None)
    if class_map is None:
        return
    width = npz.header(class_map)[0][1]
    if "video_scores" in scores:
        shape, _, dtype = npz.header("video_scores")
        if abs(shape[1] - width) > 1:
            rule = f"must have as many columns as {class_map!r} ({width}), or one more or less"
            _refuse_array(npz, "video_scores", rule, shape, dtype)
    if "classes" in npz and (names := len(_npz_text(npz, "classes"))) not in (width - 1, width):
        _refuse(
            f"{npz.path}: `classes`", f"must name the {width} columns of {class_map!r}, or all but a background", names
        )


def read_tcams(path: StrPath, *, seconds_per_snippet: float | None = None, max_bytes: int = MAX_NPZ_BYTES) -> Videos:
    """Videos with their maps from one npz file.

    ``names`` (N,) are the video ids and ``offsets`` (N+1,) the rows of every map that belong to each of them.  A map is
    an array with as many rows as all videos have snippets; ``(N, K)`` arrays are video-level scores.  A file of ours
    lists both in ``map_names`` and ``score_names`` and is taken at its word.  In other files

    * ``tcam``, ``cas``, ``attention``, ``actionness`` and ``logits`` must be maps, ``video_scores`` must be scores, and
      every other name that ends in ``_scores`` must be one of both: what does not fit is refused;
    * any other floating-point array is taken if it has such a shape.  One number per video, scalars, and an array
      ``X_...`` beside ``X_offsets`` (rows of its own per video) are left alone; other shapes are left alone with a
      warning.  What is not floating-point is not looked at;
    * there must be a map; ``video_scores`` may have one column more or less than ``tcam``, and ``classes`` as many
      names as ``tcam`` has columns or one less (a background).

    The map ``tcam`` is called ``"cas"`` and scores ``video_scores`` are called ``"video"``
    (``rgb_scores``: ``"rgb"``), the names that presets look for.

    Optional arrays: ``duration`` and ``seconds_per_snippet`` (N,), NaN where not known; ``classes``; ground truth
    ``gt_offsets``, ``gt_segments`` (seconds), ``gt_labels``, ``gt_duration`` (default ``duration``), ``subset``;
    ambiguous spans ``amb_offsets``, ``amb_segments``; ``warp_offsets``, ``warp_knots``, ``warp_times``.

    Parameters
    ----------
    path : str or path
        The file.
    seconds_per_snippet : float, optional
        Taken for the videos of which the file does not know it.
    max_bytes : int, default 16 GiB
        Largest size of all arrays together after unpacking; compared before anything is allocated.

    Returns
    -------
    Videos
        In the order of the file.  The maps of a video are views into the arrays that were read, in their own dtype, so
        the memory is that of the file's arrays.

    Raises
    ------
    FormatError
        If the file is not a zip of ``.npy`` arrays, holds pickles, or announces other sizes than it has, if a shape
        fits both kinds, if an array of a known name fits none, or if names, offsets or numbers are not what they
        should be.

    Warns
    -----
    UserWarning
        If a file that does not list its maps has floating-point arrays of other shapes.

    See Also
    --------
    write_tcams : the way back.

    Examples
    --------
    >>> import os, tempfile
    >>> video = Video("v", {"cas": np.eye(3)}, {"video": [0.1, 0.8, 0.1]}, seconds_per_snippet=0.64)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tcams(os.path.join(folder, "t.npz"), [video], classes=["Diving", "LongJump", "Shotput"])
    ...     videos = read_tcams(os.path.join(folder, "t.npz"))
    >>> videos, videos["v"].maps["cas"].shape, videos[0].scores["video"].tolist()
    (<Videos: 1 videos, 3 classes>, (3, 3), [0.1, 0.8, 0.1])
    """
    if seconds_per_snippet is not None:
        seconds_per_snippet = _checks.as_number(seconds_per_snippet, "seconds_per_snippet", above=0.0)
    with _npy.NpzReader(path, _as_limit(max_bytes)) as npz:
        _npz_require(npz, "names", "offsets")
        names = _npz_text(npz, "names")
        offsets = _npz_offsets(npz, "offsets", len(names), None)
        map_names, score_names = _npz_roles(npz, int(offsets[-1]), len(names))
        maps = {_MAP_NAMES.get(name, name): _npz_array(npz, name, int(offsets[-1]), (1, 2)) for name in map_names}
        scores = {name.removesuffix("_scores"): _npz_array(npz, name, len(names), (2,)) for name in score_names}
        if len(maps) != len(map_names) or len(scores) != len(score_names):
            _refuse(f"{npz.path}: the file", "must have one array per map and score", [*map_names, *score_names])
        durations = _npz_numbers(npz, "duration", len(names))
        steps = _npz_numbers(npz, "seconds_per_snippet", len(names))
        warps = _npz_warps(npz, len(names))
        classes = _npz_text(npz, "classes") if "classes" in npz else ()
        has_truth = any(name in npz for name in _RESERVED if name.startswith(("gt_", "amb_")))
        truth = _npz_annotations(npz, None, None) if has_truth else None
    videos = []
    for row, name in enumerate(names):
        span = slice(int(offsets[row]), int(offsets[row + 1]))
        try:
            video = Video(
                name,
                {key: value[span] for key, value in maps.items()},
                {key: value[row] for key, value in scores.items()},
                seconds_per_snippet if np.isnan(steps[row]) else float(steps[row]),
                None if np.isnan(durations[row]) else float(durations[row]),
                warps[row],
            )
        except (TypeError, ValueError) as error:
            raise FormatError(f"{os.fspath(path)}: video {name!r}: {error}") from None
        videos.append(video)
    return Videos(tuple(videos), classes, truth)


def _npz_array(npz: _npy.NpzReader, name: str, rows: int, ndim: tuple[int, ...]) -> NDArray[Any]:
    """An array of real numbers with so many rows; what does not fit is not read."""
    shape, _, dtype = npz.header(name)
    if len(shape) not in ndim or shape[0] != rows or dtype.kind not in _REAL:
        _refuse_array(npz, name, f"must be real numbers in {rows} rows", shape, dtype)
    return npz.read(name)


def _npz_warps(npz: _npy.NpzReader, count: int) -> list[tuple[NDArray[Any], NDArray[Any]] | None]:
    """The time warp of every video, None where it has none."""
    if not any(name in npz for name in ("warp_offsets", "warp_knots", "warp_times")):
        return [None] * count
    _npz_require(npz, "warp_offsets", "warp_knots", "warp_times")
    bounds = _npz_offsets(npz, "warp_offsets", count, None)
    knots, times = (_npz_array(npz, name, int(bounds[-1]), (1,)) for name in ("warp_knots", "warp_times"))
    pairs = zip(bounds[:-1].tolist(), bounds[1:].tolist())
    return [(knots[start:stop], times[start:stop]) if stop > start else None for start, stop in pairs]


def write_tcams(
    path: StrPath,
    videos: Iterable[Video],
    *,
    classes: Sequence[str] | None = None,
    annotations: Annotations | None = None,
    compressed: bool = False,
) -> None:
    """Write videos with their maps as one npz file, whole or not at all.

    `read_tcams` describes the layout and gives the same videos back.  The same videos give the same bytes.

    Parameters
    ----------
    path : str or path
        The file.
    videos : iterable of Video
        All with the same maps and scores, of one width and dtype each; ids differ.  `Video.proposals` cannot be stored.
    classes : sequence of str, optional
        Names of the classes; default those of `annotations` or of `videos`, if it is a `Videos`.
    annotations : Annotations, optional
        Ground truth of the same videos, in any order; default that of `videos`, if it is a `Videos`.
    compressed : bool, default False
        Deflate the arrays: smaller, and several times slower to write and read.

    Raises
    ------
    ValueError
        If the videos differ in their maps or scores, carry proposals, or share an id; if a map has a name that the
        layout needs; or if `annotations` are of other videos or classes.
    """
    if isinstance(videos, Videos):
        annotations = videos.annotations if annotations is None else annotations
        classes = (videos.classes or None) if classes is None else classes
    if classes is None and annotations is not None:
        classes = annotations.classes
    arrays = _tcam_arrays(tuple(videos))
    if classes is not None:
        arrays["classes"] = _text_array(_class_names(classes), "classes")
    if annotations is not None:
        arrays |= _truth_arrays(annotations, arrays["names"].tolist(), tuple(classes or ()))
    with atomic_write(path, "wb") as file:
        _npy.write_npz(file, arrays, compressed=compressed)


def _text_array(names: Sequence[str], argument: str) -> NDArray[np.str_]:
    """Names as an array of text, which cannot hold a NUL at the end."""
    for name in names:
        if "\0" in name:
            raise ValueError(f"`{argument}` must not contain a NUL, got {name!r:.80}")
    return np.array(names, dtype=np.str_).reshape(len(names))


def _tcam_arrays(videos: tuple[Video, ...]) -> dict[str, NDArray[Any]]:
    """Everything but class names and ground truth."""
    ids = [video.id for video in videos]
    if (twice := _repeated(ids)) is not None:
        raise ValueError(f"`videos` must have different ids, {twice!r} stands {ids.count(twice)} times")
    first = videos[0] if videos else Video("", {})
    for video in videos:
        if video.maps.keys() != first.maps.keys() or video.scores.keys() != first.scores.keys():
            raise ValueError(
                f"`videos` must share their maps and scores; {video.id!r} has {sorted(video.maps)} and"
                f" {sorted(video.scores)}, {first.id!r} has {sorted(first.maps)} and {sorted(first.scores)}"
            )
        if video.proposals is not None:
            raise ValueError(f"`videos` must not carry proposals, which the format cannot hold; {video.id!r} does")
    stored = {value: key for key, value in _MAP_NAMES.items()}
    maps = {name: stored.get(name, name) for name in first.maps}
    scores = {name: f"{name}_scores" for name in first.scores}
    used = [*maps.values(), *scores.values()]
    for name in used:
        if name in _RESERVED or used.count(name) > 1 or not _ARRAY_NAME.fullmatch(name):
            raise ValueError(f"`videos` has a map or score whose array {name!r:.120} the layout cannot have; rename it")
    for name in _MAP_NAMES:
        if name in maps:
            raise ValueError(
                f"`videos` has a map {name!r}, which would be read back as {_MAP_NAMES[name]!r}; rename it"
            )
    unknown = math.nan
    arrays: dict[str, NDArray[Any]] = {
        "names": _text_array(ids, "videos"),
        "offsets": np.cumsum([0, *(video.num_snippets for video in videos)], dtype=np.int64),
        "duration": np.array([unknown if v.duration is None else v.duration for v in videos], np.float64),
        "seconds_per_snippet": np.array(
            [unknown if v.seconds_per_snippet is None else v.seconds_per_snippet for v in videos], np.float64
        ),
        "map_names": _text_array(list(maps.values()), "videos"),
        "score_names": _text_array(list(scores.values()), "videos"),
    }
    for name, array_name in maps.items():
        parts = [video.maps[name] for video in videos]
        if len({(part.shape[1:], part.dtype) for part in parts}) > 1:
            raise ValueError(f"`videos` must share the width and dtype of map {name!r}, got {_kinds(parts)}")
        arrays[array_name] = np.concatenate(parts)
    for name, array_name in scores.items():
        parts = [video.scores[name] for video in videos]
        if len({part.shape for part in parts}) > 1:
            raise ValueError(f"`videos` must share the width of scores {name!r}, got {_kinds(parts)}")
        arrays[array_name] = np.stack(parts)
    if any(video.warp is not None for video in videos):
        warps = [video.warp or (np.empty(0), np.empty(0)) for video in videos]
        arrays["warp_offsets"] = np.cumsum([0, *(len(knots) for knots, _ in warps)], dtype=np.int64)
        arrays["warp_knots"] = np.concatenate([knots for knots, _ in warps])
        arrays["warp_times"] = np.concatenate([times for _, times in warps])
    return arrays


def _kinds(parts: list[NDArray[Any]]) -> str:
    return ", ".join(sorted({f"{part.dtype} (..., {part.shape[-1]})" for part in parts})[:4])


def _truth_arrays(annotations: Annotations, ids: list[str], classes: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Ground truth in the order of the videos."""
    if tuple(classes) != annotations.classes:
        raise ValueError(
            f"`annotations` must have the classes of the file ({len(classes)}), got {len(annotations.classes)}"
        )
    if set(ids) != set(annotations.video_ids):
        other = sorted(set(ids) ^ set(annotations.video_ids))
        raise ValueError(
            f"`annotations` must be of the same videos; {other[0]!r} is in one of both ({len(other)} such)"
        )
    where = {name: row for row, name in enumerate(annotations.video_ids)}
    order = [where[name] for name in ids]
    arrays: dict[str, NDArray[Any]] = {
        "subset": _text_array([annotations.subsets[row] for row in order], "subsets"),
        "gt_duration": annotations.durations[order],
    }
    for prefix, segments in (("gt", annotations.segments), ("amb", annotations.ambiguous)):
        if segments is not None:
            parts = [segments.video(row) for row in order]
            arrays[f"{prefix}_offsets"] = np.cumsum([0, *map(len, parts)], dtype=np.int64)
            arrays[f"{prefix}_segments"] = np.concatenate([np.empty((0, 2)), *(part.segments for part in parts)])
    labels = [annotations.segments.video(row).labels for row in order]
    arrays["gt_labels"] = np.concatenate([np.empty(0, np.int64), *labels])
    return arrays


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
        "video-id": _text_array(segments.video_ids, "video_ids")[segments.video_index],
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
        _refuse("`results`", f"must have the keys {missing}", sorted(map(str, results)))
    return _grouped({name: results[name] for name in _COLUMNS}, {}, "second", video_ids, "results")


def _grouped(
    columns: Mapping[str, ArrayLike],
    extra: Mapping[str, NDArray[Any]],
    unit: Unit,
    video_ids: Sequence[str] | None,
    argument: str,
) -> Segments:
    """Rows of any order as segments grouped by video."""
    names = [_as_text(name, f"`{argument}['video-id']`") for name in np.asarray(columns["video-id"]).ravel().tolist()]
    ids = tuple(dict.fromkeys(names)) if video_ids is None else tuple(map(str, video_ids))
    place = {name: row for row, name in enumerate(ids)}
    for row, name in enumerate(names):
        if name not in place:
            _refuse(f"`{argument}['video-id']`", f"must be one of the {len(ids)} `video_ids` (row {row})", name)
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
        names = _class_names(classes)
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
        _refuse("`frame`", f"must have the columns {missing}", [str(name) for name in frame.columns])
    unit = getattr(frame, "attrs", {}).get("unit", "second") if unit is None else unit
    columns: dict[str, Any] = {name: frame[name].to_numpy() for name in _COLUMNS if name in frame}
    columns.setdefault("score", np.ones(len(frame)))
    if classes is not None:
        index = {name: row for row, name in enumerate(_class_names(classes))}
        columns["label"] = [_as_class(label, index, "`frame['label']`") for label in columns["label"].tolist()]
    extra = {str(name): frame[name].to_numpy() for name in frame.columns if name not in _COLUMNS}
    return _grouped(columns, extra, unit, video_ids, "frame")
