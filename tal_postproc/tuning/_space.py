"""What a search may change: names of settings, the values that they may take, and pipelines made of both."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from itertools import product
from typing import Any

import numpy as np

from .. import _checks
from ..config import Pipeline, Settings, _made, _plain

_NO_MATTER = ("labels", "protocol", "tiou_thresholds", "provenance")  # for what is detected
_PARTS = ("first", "last", "number", "step")  # of a list of thresholds that is made, not written down


@dataclass(frozen=True)
class Range:
    """Numbers from `first` to `last`, both included.

    With `step` or `number` these are single values, whole ones where `first` and `step` are; with neither any number
    between them, which methods "random" and "optuna" can search.  `log` spaces by factors; it goes with `number`, or
    with neither.

    >>> Range(0.1, 0.4, step=0.1).values()
    (0.1, 0.2, 0.3, 0.4)
    >>> Range(0.01, 1.0, number=3, log=True).values()
    (0.01, 0.1, 1.0)
    """

    first: float
    last: float
    step: float | None = None
    number: int | None = None
    log: bool = False

    def __post_init__(self) -> None:
        first = _checks.as_number(self.first, "Range.first")
        _checks.as_number(self.last, "Range.last", at_least=first)
        _checks.as_flag(self.log, "Range.log")
        if self.step is not None:
            _checks.as_number(self.step, "Range.step", above=0.0)
            if self.number is not None or self.log:
                raise ValueError("`Range.step` goes with neither `number` nor `log`")
        if self.number is not None:
            _checks.as_count(self.number, "Range.number", at_least=1 if self.first == self.last else 2)
        if self.log:
            _checks.as_number(self.first, "Range.first", above=0.0)

    def values(self) -> tuple[float, ...] | None:
        """The single values, free of rounding noise; None where there are none."""
        if self.step is not None:
            return _stepped(self.first, self.last, self.step)
        if self.number is None:
            return None
        space = np.geomspace if self.log else np.linspace
        return tuple(_neat(value) for value in space(self.first, self.last, self.number).tolist())


def _neat(value: float) -> float:
    """0.3 in place of 0.30000000000000004."""
    return float(f"{value:.12g}")


def _stepped(first: float, last: float, step: float) -> tuple[float, ...]:
    count = math.floor((last - first) / step + 1e-9) + 1
    whole = all(isinstance(one, int) for one in (first, step))
    return tuple(first + k * step if whole else _neat(first + k * step) for k in range(count))


@dataclass(frozen=True)
class Choice:
    """A setting that is searched, by its full path, and what it may be."""

    name: str  # as the user wrote it
    path: tuple[str, ...]
    values: tuple[Any, ...] | None  # plain ones; None: any number of `range`
    range: Range | None = None

    def value(self, share: float) -> Any:
        """The value at that share of the way, in [0, 1)."""
        if self.values is not None:
            return self.values[int(share * len(self.values))]
        low, high = self._bounds()
        return math.exp(low + share * (high - low)) if self.log else low + share * (high - low)

    @property
    def log(self) -> bool:
        return self.range is not None and self.range.log

    def _bounds(self) -> tuple[float, float]:
        if self.range is None:
            raise ValueError(f"`space[{self.name!r}]` has no range")
        bounds = self.range.first, self.range.last
        return (math.log(bounds[0]), math.log(bounds[1])) if self.log else bounds


class Space:
    """The settings that are searched, and the pipelines that they make of a first one."""

    def __init__(self, pipeline: Pipeline, space: Mapping[str, Any]) -> None:
        if not isinstance(space, Mapping) or not space:
            raise ValueError(f"`space` must map at least one name of a setting to values, got {space!r:.80}")
        self.pipeline = pipeline
        given = {name: _as_values(name, values) for name, values in space.items()}
        whole = {name: values[0] for name, values in given.items() if values[0] and _settings_in(values[0])}
        self._bases = [pipeline]  # and with every alternative that brings fields of its own
        for name, alternatives in whole.items():
            path = self._resolve(name)
            self._bases += [_put(base, path, one) for base in list(self._bases) for one in _settings_in(alternatives)]
        self.choices = tuple(Choice(name, self._resolve(name), *values) for name, values in given.items())
        paths = [choice.path for choice in self.choices]
        for choice in self.choices:
            if paths.count(choice.path) > 1:
                raise ValueError(f"`space` names {'.'.join(choice.path)!r} {paths.count(choice.path)} times")
            if choice.path[-1] == "step" and (*choice.path[:-1], "number") in paths:
                raise ValueError(f"`space` may have {choice.name!r} or a number in its place, not both")
            self._require_possible(choice)

    def _resolve(self, name: str) -> tuple[str, ...]:
        """The full path that a name means: it is one, or the end of exactly one."""
        known = list(dict.fromkeys(path for base in self._bases for path in _paths(base) if path[0] not in _NO_MATTER))
        wanted = tuple(str(name).split("."))
        if any(_fits(path, wanted) for path in known):
            return wanted
        ends = [path for path in known if path[-len(wanted) :] == wanted]
        if len(ends) == 1:
            return ends[0]
        alike = get_close_matches(wanted[-1], {path[-1]: None for path in known})
        near = ends or [path for path in known if path[-1] in alike] or [path for path in known if len(path) < 4]
        said = "means several settings" if ends else "is no setting of the pipeline"
        raise ValueError(f"`space`: {name!r} {said}; there are {', '.join(map('.'.join, near))}")

    def _require_possible(self, choice: Choice) -> None:
        """ValueError for a value that no pipeline could have, whatever the other settings are."""
        if choice.path[-1] in _PARTS and choice.path[-2] == "thresholds":
            return
        for value in choice.values or (choice.value(0.0), choice.value(1.0)):
            reasons = []
            for base in self._bases:
                try:
                    if _put(base, choice.path, value) is not base:
                        break
                except (ValueError, TypeError) as error:
                    reasons.append(str(error))
            else:
                if reasons:
                    raise ValueError(f"`space[{choice.name!r}]`: {reasons[0]}")

    @property
    def size(self) -> int | None:
        """Number of combinations; None where a range has no single values."""
        sizes = [None if choice.values is None else len(choice.values) for choice in self.choices]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    def grid(self) -> Iterator[dict[str, Any]]:
        """All combinations, the last setting fastest."""
        for choice in self.choices:
            if choice.values is None:
                raise ValueError(f"`space[{choice.name!r}]` needs a step or a number for method 'grid'")
        names = [choice.name for choice in self.choices]
        for values in product(*(choice.values or () for choice in self.choices)):
            yield dict(zip(names, values))

    def make(self, setting: Mapping[str, Any]) -> tuple[Pipeline, dict[str, Any]]:
        """The pipeline of a setting, and those of its values that count: a SoftNms stage has no use for a threshold.

        Raises ValueError or TypeError with the rule that the combination breaks.
        """
        pipeline, used, parts = self.pipeline, dict(setting), []
        for choice in sorted(self.choices, key=lambda one: len(one.path)):  # whole stages come before their fields
            if choice.path[-1] in _PARTS and choice.path[-2] == "thresholds":
                parts.append(choice)
                continue
            if not any(_fits(path, choice.path) for path in _paths(pipeline)):
                del used[choice.name]
                continue
            pipeline = _put(pipeline, choice.path, setting[choice.name])
        for prefix in dict.fromkeys(choice.path[:-1] for choice in parts):
            own = {choice.path[-1]: setting[choice.name] for choice in parts if choice.path[:-1] == prefix}
            pipeline = _put_thresholds(pipeline, prefix, own)
        return pipeline, used


def _as_values(name: str, values: Any) -> tuple[tuple[Any, ...] | None, Range | None]:
    """The values of a list or a range, plain, or the range itself where it has none."""
    if isinstance(values, Mapping) and "type" not in values:
        unknown = sorted(set(values) - {field.name for field in fields(Range)})
        if unknown or not {"first", "last"} <= set(values):
            raise ValueError(f"`space[{name!r}]` must be a list, or have first, last and step or number, got {values}")
        values = Range(**values)
    if isinstance(values, Range):
        single = values.values()
        return single, None if single is not None else values
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError(f"`space[{name!r}]` must be a list of at least one value, or a Range, got {values!r:.80}")
    plain = tuple(_bare(value) for value in values)
    for value in plain:
        if plain.count(value) > 1:
            raise ValueError(f"`space[{name!r}]` must hold every value once, got {value!r} {plain.count(value)} times")
    return plain, None


def _bare(value: Any) -> Any:
    """Without settings, tuples and NumPy's types: as JSON would give it back."""
    if isinstance(value, Mapping):
        return {str(key): _bare(item) for key, item in value.items()}
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_bare(item) for item in value]
    return _plain(value)


def _settings_in(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, Mapping) and "type" in value]


def _paths(node: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """All that can be named below a setting."""
    if isinstance(node, Settings):
        for field in fields(node):  # type: ignore[arg-type]
            yield (*prefix, field.name)
            yield from _paths(getattr(node, field.name), (*prefix, field.name))
    elif prefix[-1:] == ("thresholds",):
        yield from ((*prefix, part) for part in _PARTS)
    elif isinstance(node, tuple):
        for index, item in enumerate(node):
            yield (*prefix, str(index))
            yield from _paths(item, (*prefix, str(index)))


def _fits(path: Sequence[str], wanted: Sequence[str]) -> bool:
    return len(path) == len(wanted) and all(other in (one, "*") for one, other in zip(path, wanted))


def _put(node: Any, path: Sequence[str], value: Any) -> Any:
    """The same settings with another value at the path; those that have no such field stay as they are."""
    if not path:
        return _made(value)
    head, rest = path[0], path[1:]
    if isinstance(node, tuple):
        wanted = [head == "*" or head == str(index) for index in range(len(node))]
        items = tuple(_put(item, rest, value) if hit else item for item, hit in zip(node, wanted))
        return node if all(new is old for new, old in zip(items, node)) else items
    if isinstance(node, Settings) and any(field.name == head for field in fields(node)):  # type: ignore[arg-type]
        old = getattr(node, head)
        new = _put(old, rest, value)
        return node if new is old and rest else replace(node, **{head: new})  # type: ignore[type-var]
    return node


def _get(node: Any, path: Sequence[str]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What stands at a path, and where; a star means every place."""
    for known in _paths(node):
        if _fits(known, path):
            found = node
            for part in known:
                found = found[int(part)] if isinstance(found, tuple) else getattr(found, part)
            yield known, found


def _put_thresholds(pipeline: Pipeline, prefix: tuple[str, ...], parts: Mapping[str, Any]) -> Pipeline:
    """Thresholds spaced evenly; what is not said is as in the list that stood there."""
    for path, old in list(_get(pipeline, prefix)):
        first, last = (
            _checks.as_number(parts.get(name, end(old)), name) for name, end in (("first", min), ("last", max))
        )
        if first > last:
            raise ValueError(f"`{'.'.join(path)}.first` must be at most last, got {first:g} and {last:g}")
        if "step" in parts:
            values = _stepped(first, last, _checks.as_number(parts["step"], f"{'.'.join(path)}.step", above=0.0))
        else:
            number = _checks.as_count(parts.get("number", len(old)), f"{'.'.join(path)}.number", at_least=1)
            values = tuple(_neat(value) for value in np.linspace(first, last, number).tolist())
        pipeline = _put(pipeline, path, values)
    return pipeline
