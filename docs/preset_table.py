"""The table of docs/presets.md, made from the presets themselves: python docs/preset_table.py"""

from __future__ import annotations

from tal_postproc import config, presets

COLUMNS = ("preset", "maps", "thresholds", "contrast", "classes", "then", "unit", "evaluator")


def _listed(bank: config.Bank) -> str:
    values = bank.thresholds
    shown = (
        f"{len(values)} from {values[0]:g} to {values[-1]:g}"
        if len(values) > 2
        else ", ".join(map("{:g}".format, values))
    )
    return ("≥ " if bank.inclusive else "> ") + shown


def _contrast(bank: config.Bank) -> str:
    margin = bank.score.margin
    if margin is None:
        return "none"
    size = f"{margin.scale:g} n" + (f"^{margin.power:g}" if margin.power != 1.0 else "")
    return f"{margin.layout}, {size}" + (", zeroed" if bank.score.zero_below else "")


def _classes(rule: config.Classes | None) -> str:
    if rule is None:
        return "all"
    return f"{'≥' if rule.inclusive else '>'} {rule.threshold:g}" + (
        ", or the best" if rule.fallback == "argmax" else ""
    )


def _stage(stage: config.Stage) -> str:
    if isinstance(stage, (config.Nms, config.Fuse)):
        over = {"iou": "tIoU", "candidate": "share"}[stage.overlap.kind] + (
            " +1" if stage.overlap.length_offset else ""
        )
        sign = "≥" if getattr(stage, "inclusive", False) else ">"
        more = f", T = {stage.temperature:g}" if isinstance(stage, config.Fuse) else ""
        return f"{type(stage).__name__} {over} {sign} {stage.threshold:g}{more}"
    if isinstance(stage, config.SoftNms):
        return f"SoftNms σ = {stage.sigma:g}" + (", +1" if stage.overlap.length_offset else "")
    if isinstance(stage, config.Keep):
        return f"Keep length > {stage.min_length:g}"
    return type(stage).__name__


def table() -> str:
    """Markdown, one row per preset."""
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    for name in presets.names():
        pipeline = presets.get(name)
        stages = [stage for stage in pipeline.stages if not isinstance(stage, config.Seconds)]
        rows.append(
            (
                f"`{name}`",
                ", ".join(pipeline.map_names()),
                "; ".join(dict.fromkeys(map(_listed, pipeline.banks))),
                "; ".join(dict.fromkeys(map(_contrast, pipeline.banks))),
                _classes(pipeline.classes),
                ", ".join(map(_stage, stages)),
                "second" if len(stages) < len(pipeline.stages) else "snippet",
                pipeline.protocol,
            )
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(table())
