"""The papers' ablation tables as data: what is trained, what is only tested otherwise, and the papers' own numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["TABLES", "Row", "Table", "Trial"]

TO_07 = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
TO_09 = (*TO_07, 0.8, 0.9)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training, and one of its tests.

    Parameters
    ----------
    recipe : str
        As ``tal-postproc train`` names it.
    options : mapping of str to value
        Of the recipe, in place of those of the profile.
    test : mapping of str to value
        Options that change only what follows the maps: trials that differ in nothing else share one training.
    length : float
        Of the training, as a part of the profile's epochs.
    until : float, optional
        Test the networks as they were after this part of the profile's epochs.
    entry : tuple of str or int
        Where in the summary of the run the metrics stand that are names.
    paper : tuple of float
        What the paper has, metric by metric, in percent; shorter where it does not have them all.
    """

    recipe: str
    options: Mapping[str, Any] = field(default_factory=dict)
    test: Mapping[str, Any] = field(default_factory=dict)
    length: float = 1.0
    until: float | None = None
    entry: tuple[str | int, ...] = ()
    paper: tuple[float, ...] = ()


@dataclass(frozen=True)
class Row:
    """A line of a table: one trial for every group of columns; `reference` is the row that it is compared with."""

    label: str
    trials: tuple[Trial, ...]
    reference: int = 0


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a paper.

    Parameters
    ----------
    title : str
        Where it stands.
    rows : tuple of Row
        In the paper's order.
    metrics : tuple of float or str
        Columns of every group: a tIoU, "avg" over `tiou_thresholds`, or a name in the summary of the run.
    headline : float or str
        The metric by which rows are compared.
    groups : tuple of str
        Names of the groups of columns; one that is empty where the table has no groups.
    tiou_thresholds : tuple of float
        Of the mAP.
    figure : bool
        Whether the paper draws it: the labels are numbers.
    note : str
        What a reader of the table must know.
    """

    title: str
    rows: tuple[Row, ...]
    metrics: tuple[float | str, ...] = (0.3, 0.5, 0.7, "avg")
    headline: float | str = "avg"
    groups: tuple[str, ...] = ("",)
    tiou_thresholds: tuple[float, ...] = TO_07
    figure: bool = False
    note: str = ""

    @property
    def is_of_summary(self) -> bool:
        """Whether the metrics are told by the run itself, not mAPs."""
        return all(isinstance(metric, str) and metric != "avg" for metric in self.metrics)


def _row(label: str, recipe: str, paper: tuple[float, ...], /, reference: int = 0, **options: Any) -> Row:
    """A line of a table with a single group of columns."""
    return Row(label, (Trial(recipe=recipe, options=options, paper=paper),), reference)


RSKP_3 = Table(
    title="RSKP, Table 3: representative snippets",
    rows=(
        _row("Baseline", "rskp", (45.2, 29.9, 10.2, 36.8), representatives="none"),
        _row("+ representative snippets", "rskp", (48.7, 33.1, 11.5, 40.1), pseudo_labels=False, memory=False),
        _row("+ pseudo label supervision", "rskp", (54.5, 37.3, 12.5, 44.2), memory=False),
        _row("+ memory bank", "rskp", (55.8, 38.2, 12.5, 45.1)),
        _row("replace mu^a with F", "rskp", (52.4, 35.5, 11.7, 42.4), representatives="features", memory=False),
    ),
)

RSKP_5 = Table(
    title="RSKP, Table 5: propagation",
    rows=(
        _row("Random walk Z mu", "rskp", (45.0, 25.0, 6.8, 34.8), 1, propagation="once", memory=False),
        _row("Equation (6)", "rskp", (54.5, 37.3, 12.5, 44.2), 1, memory=False),
        _row("Propagate scores", "rskp", (49.5, 28.8, 8.2, 38.5), 1, propagation="scores", memory=False),
        _row(
            "Propagate features w/o L_cls", "rskp", (48.2, 28.4, 8.3, 37.7), 1, propagation="unclassified", memory=False
        ),
    ),
    note="The paper's row of the random walk repeats a row of its Table 4 digit for digit: no target.",
)

_BACKBONES = {  # name -> label, and mAP: baseline of RSKP's table, of GauFuse's, + RSKP, + GauFuse
    "stpn": (
        "STPN + embedding",
        (38.4, 19.1, 4.7, 28.9),
        (38.4, 19.1, 4.7, 28.4),
        (46.5, 21.8, 5.8, 33.7),
        (41.6, 22.1, 6.8, 31.6),
    ),
    "bm": ("BM", (45.2, 26.2, 8.7, 35.3), (45.2, 26.2, 8.7, 35.3), (47.4, 29.3, 9.2, 37.7), (47.4, 28.5, 10.3, 37.3)),
    "wum": (
        "WUM",
        (51.0, 32.8, 10.9, 40.4),
        (51.0, 32.8, 10.9, 40.4),
        (53.5, 34.0, 12.7, 42.4),
        (53.2, 34.0, 11.4, 42.3),
    ),
    "facnet": (
        "FAC-Net",
        (53.2, 34.4, 13.7, 42.9),
        (53.2, 34.4, 13.7, 42.9),
        (55.8, 38.4, 13.3, 45.2),
        (56.4, 37.2, 13.0, 44.8),
    ),
}


def _plugged(recipe: str, column: int) -> tuple[Row, ...]:
    """Every backbone alone (numbers of `column`), and with a method (those two columns on)."""
    rows: list[Row] = []
    for backbone, (label, *papers) in _BACKBONES.items():
        alone = len(rows)
        rows.append(_row(label, "plain", papers[column], alone, backbone=backbone))
        rows.append(_row(f"{label} + {recipe}", recipe, papers[column + 2], alone, backbone=backbone))
    return tuple(rows)


RSKP_6 = Table(title="RSKP, Table 6: on other backbones", rows=_plugged("rskp", 0))

TWO_STREAM_3 = Table(
    title="Two-stream, Table 3: losses",
    metrics=(*TO_07, "avg"),
    rows=(
        _row(
            "L_fg",
            "two_stream",
            (62.8, 56.0, 45.8, 37.1, 26.7, 17.4, 8.5, 36.3),
            background=False,
            context=False,
            guide="none",
            semantic=False,
        ),
        _row(
            "L_fg + L_bg",
            "two_stream",
            (63.4, 57.9, 47.6, 38.7, 27.4, 18.2, 9.0, 37.5),
            context=False,
            guide="none",
            semantic=False,
        ),
        _row(
            "L_fg + L_bg + L_ct",
            "two_stream",
            (67.6, 61.7, 52.5, 42.7, 31.9, 20.8, 10.1, 41.0),
            guide="none",
            semantic=False,
        ),
        _row(
            "L_fg + L_bg + L_ct + L_gui",
            "two_stream",
            (70.2, 65.2, 55.6, 45.4, 32.8, 21.3, 10.8, 43.0),
            semantic=False,
        ),
        _row(
            "L_fg + L_bg + L_ct + L_gui + L_smt",
            "two_stream",
            (73.0, 68.2, 60.0, 47.9, 37.1, 24.4, 12.7, 46.2),
        ),
    ),
)

TWO_STREAM_5 = Table(
    title="Two-stream, Table 5: branches",
    metrics=(*TO_07, "avg"),
    rows=tuple(
        _row(label, "two_stream", paper, guide="none", semantic=False, branches=branches)
        for label, branches, paper in (
            ("Baseline", "both", (67.6, 61.7, 52.5, 42.7, 31.9, 20.8, 10.1, 41.0)),
            ("Attention-based", "attention", (57.1, 50.5, 41.0, 30.9, 20.6, 11.0, 4.7, 30.8)),
            ("MIL-based", "mil", (63.6, 57.0, 47.3, 35.9, 24.7, 15.5, 8.2, 36.0)),
        )
    ),
)

GAUFUSE_3 = Table(
    title="GauFuse, Table 3: distributions of the fusion in training (readings A and B) and in testing",
    metrics=(0.5, 0.7, "avg"),
    groups=("training A", "training B", "testing"),
    rows=tuple(
        Row(
            label,
            (
                *(
                    Trial(
                        recipe="gaufuse",
                        options={"instances": instances, "labels": labels, "delta": False},
                        test={"test_instances": "nms"},
                        paper=training,
                    )
                    for labels in ("linpro", "score")
                ),
                Trial(recipe="gaufuse", options={"labels": "none"}, test={"test_instances": instances}, paper=testing),
            ),
        )
        for label, instances, training, testing in (
            ("Baseline (NMS)", "nms", (36.2, 12.2, 44.9), (36.6, 11.1, 44.9)),
            ("Uniform", "uniform", (24.2, 8.1, 31.2), (33.8, 9.7, 41.5)),
            ("Exponential", "exponential", (36.2, 12.3, 45.3), (41.1, 12.4, 47.1)),
            ("t-distribution", "student_t", (36.7, 12.7, 45.6), (41.2, 11.5, 47.1)),
            ("Gaussian", "gaussian", (36.6, 12.7, 45.6), (41.2, 11.6, 47.1)),
        )
    ),
    note="Training: labels from these instances, Delta off, NMS in the test. Reading A makes labels with LinPro (the "
    "paper's rows are those of its Table 4 with LinPro on), B takes the largest score that covers a snippet (its text "
    "says that LinPro is off). Testing: one training without labels, tested with every suppression.",
)

_NMS = {"test_instances": "nms"}
UNLABELLED = "without labels"
GAUFUSE_4 = Table(
    title="GauFuse, Table 4: components",
    rows=(
        _row("baseline", "rskp", (55.8, 38.2, 12.5, 45.1)),
        *(
            Row(label, (Trial(recipe="gaufuse", options=options, test=test, paper=paper),), int(label != UNLABELLED))
            for label, options, test, paper in (
                (UNLABELLED, {"labels": "none"}, _NMS, ()),
                ("+ LinPro", {"instances": "nms", "delta": False}, _NMS, (57.4, 36.2, 12.2, 44.9)),
                ("+ Gaussian weighted fusion", {"delta": False}, _NMS, (58.2, 36.6, 12.7, 45.6)),
                ("+ Delta pseudo label", {}, _NMS, (58.4, 37.6, 12.2, 46.2)),
                ("+ Gaussian weighted fusion (testing)", {}, {}, (60.7, 42.7, 13.1, 48.3)),
            )
        ),
    ),
)

GAUFUSE_5 = Table(title="GauFuse, Table 5: on other backbones", rows=_plugged("gaufuse", 1))

GAUFUSE_FIGURE_3 = Table(
    title="GauFuse, Figure 3: temperature of the fusion in training and in testing",
    metrics=(0.5, "avg"),
    groups=("training", "testing"),
    rows=tuple(
        Row(
            f"{temperature:g}",
            (
                Trial(
                    recipe="gaufuse",
                    options={} if temperature == 0.1 else {"label_temperature": temperature},  # what is the default
                    test=_NMS,
                ),
                Trial(recipe="gaufuse", test={} if temperature == 0.03 else {"test_temperature": temperature}),
            ),
            3,
        )
        for temperature in (0.01, 0.03, 0.05, 0.1, 0.2, 0.5)
    ),
    figure=True,
    note="Training: NMS in the test. Testing: one training, whose labels were fused at 0.1. Compared with 0.1.",
)

_ILG = (
    ("ILG w/o cs & tm", "two_streams"),
    ("ILG w/o tm", "cross_stream"),
    ("ILG w/o cs", "multi_resolution"),
    ("ILG", "ilg"),
)


def _ilg(papers: tuple[tuple[float, ...], ...]) -> tuple[Row, ...]:
    """Only the first labels: 3 of the 9 parts of a training with 3 stages of 2 networks."""
    return tuple(
        Row(
            label,
            (
                Trial(
                    recipe="ilg_ptlr",
                    options={"initial": initial, "stages": 0},
                    length=3 / 9,
                    entry=("labels", -1),
                    paper=paper,
                ),
            ),
        )
        for (label, initial), paper in zip(_ILG, papers)
    )


def _stage(label: str, stage: int, networks: str, paper: tuple[float, ...], reference: int, which: int = -1) -> Row:
    """The end of a stage in a training of 4; `which` of the networks' labels, from the end.

    A network has one part of a training that has 9 with both networks and 3 stages.
    """
    parts = 2 if networks == "both" else 1
    trial = Trial(
        recipe="ilg_ptlr",
        options={"stages": 4} if networks == "both" else {"stages": 4, "networks": networks},
        length=(3 + parts * 4) / 9,
        until=(3 + parts * stage) / 9,
        entry=("labels", which),
        paper=paper,
    )
    return Row(label, (trial,), reference)


PTLR_3 = Table(
    title="PTLR, Table III: mAP of the initial label generation",
    metrics=TO_09,
    headline=0.5,
    tiou_thresholds=TO_09,
    rows=_ilg(
        (
            (57.5, 51.2, 43.7, 35.5, 26.2, 17.9, 10.1, 3.8, 0.5),
            (58.3, 52.1, 44.5, 36.1, 26.5, 18.7, 10.5, 3.5, 0.3),
            (58.7, 52.9, 45.7, 36.5, 27.1, 18.5, 10.7, 3.9, 0.3),
            (59.1, 53.2, 45.5, 37.1, 27.9, 19.2, 11.6, 4.2, 0.4),
        )
    ),
)

LABEL_METRICS = ("precision", "recall", "recall_of_action")
LABEL_NOTE = (
    "In percent of snippets of the training set: recall is correct / all, as the paper defines it, recall_of_action "
    "correct / those of an action."
)
PTLR_4 = Table(
    title="PTLR, Table IV: labels of the initial label generation",
    metrics=LABEL_METRICS,
    headline="recall",
    rows=_ilg(((81.2, 23.4), (79.8, 29.1), (81.9, 30.5), (80.5, 37.4))),
    note=LABEL_NOTE,
)

_STAGES = {
    "ots": (
        (57.7, 51.9, 44.5, 36.9, 27.5, 18.3, 10.2, 4.2, 0.4),
        (58.2, 52.6, 45.1, 37.2, 27.8, 18.6, 10.5, 4.3, 0.4),
        (58.9, 52.9, 44.8, 36.9, 27.9, 18.2, 10.4, 4.2, 0.3),
        (58.5, 52.6, 44.9, 36.5, 27.4, 18.3, 10.3, 4.2, 0.3),
    ),
    "rts": (
        (58.7, 52.8, 45.1, 37.3, 27.9, 18.9, 10.3, 4.2, 0.4),
        (59.5, 53.7, 45.9, 37.6, 28.3, 19.3, 10.5, 4.1, 0.5),
        (59.8, 53.6, 46.2, 37.7, 27.9, 19.1, 10.2, 4.1, 0.4),
        (59.3, 53.1, 45.7, 37.3, 27.7, 19.0, 10.2, 4.3, 0.4),
    ),
    "both": (
        (59.5, 53.6, 45.9, 37.7, 28.5, 19.5, 10.7, 4.1, 0.3),
        (60.7, 54.9, 46.5, 38.2, 29.1, 20.0, 11.2, 4.5, 0.3),
        (61.2, 55.5, 47.1, 38.5, 29.7, 20.1, 11.5, 4.3, 0.3),
        (60.1, 55.1, 46.9, 38.2, 29.2, 19.8, 11.3, 4.1, 0.4),
    ),
}
PTLR_5 = Table(
    title="PTLR, Table V: stages",
    metrics=TO_09,
    headline=0.5,
    tiou_thresholds=TO_09,
    rows=tuple(
        _stage(f"{name}, stage {stage + 1}", stage + 1, networks, paper, 4 * number)
        for number, (name, networks) in enumerate((("PTLR-OTS", "ots"), ("PTLR-RTS", "rts"), ("PTLR", "both")))
        for stage, paper in enumerate(_STAGES[networks])
    ),
    note="Every method is compared with its first stage.",
)

PTLR_6 = Table(
    title="PTLR, Table VI: labels of the stages",
    metrics=LABEL_METRICS,
    headline="recall",
    rows=tuple(
        _stage(f"stage {stage + 1}, {name}", stage + 1, "both", paper[number], 2 * stage, number - 2)
        for stage, paper in enumerate(
            (
                ((81.4, 42.2), (82.6, 49.6)),
                ((78.9, 55.1), (79.2, 61.3)),
                ((74.5, 63.1), (73.2, 67.4)),
                ((70.1, 68.9), (69.7, 70.3)),
            )
        )
        for number, name in enumerate(("Network-OTS", "Network-RTS"))
    ),
    note=f"{LABEL_NOTE} Network-RTS is compared with Network-OTS of its stage.",
)

TABLES: Mapping[str, Table] = {
    "gaufuse-3": GAUFUSE_3,
    "gaufuse-4": GAUFUSE_4,
    "gaufuse-5": GAUFUSE_5,
    "gaufuse-figure-3": GAUFUSE_FIGURE_3,
    "two-stream-3": TWO_STREAM_3,
    "two-stream-5": TWO_STREAM_5,
    "rskp-3": RSKP_3,
    "rskp-5": RSKP_5,
    "rskp-6": RSKP_6,
    "ptlr-3": PTLR_3,
    "ptlr-4": PTLR_4,
    "ptlr-5": PTLR_5,
    "ptlr-6": PTLR_6,
}
