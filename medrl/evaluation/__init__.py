"""Measuring: cases x methods x metrics, what the figures are worth, calibration, and reports."""

from medrl.evaluation.calibration import (
    LogisticRegression,
    Reliability,
    ReliabilityBin,
    choose_threshold,
    reliability,
)
from medrl.evaluation.measurements import Failure, Measurements, Row, measure
from medrl.evaluation.report import (
    Evaluation,
    Table,
    plain,
    provenance,
    read_json,
    versions,
    write_json,
)
from medrl.evaluation.statistics import (
    Confusion,
    Difference,
    auc,
    compare,
    confusion,
    interval_by_subject,
    paired_bootstrap,
    summarize,
)

__all__ = [
    "Confusion",
    "Difference",
    "Evaluation",
    "Failure",
    "LogisticRegression",
    "Measurements",
    "Reliability",
    "ReliabilityBin",
    "Row",
    "Table",
    "auc",
    "choose_threshold",
    "compare",
    "confusion",
    "interval_by_subject",
    "measure",
    "paired_bootstrap",
    "plain",
    "provenance",
    "read_json",
    "reliability",
    "summarize",
    "versions",
    "write_json",
]
