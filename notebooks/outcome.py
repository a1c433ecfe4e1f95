"""What `qualm backtest --scores` and `lab evaluate` left in a directory, as tables.

Every notebook begins with `run = Outcome.given()`. Which directory and which labels is said by the environment, or by
the arguments: `Outcome("out", labels="labels.jsonl")`.
"""

import json
import os
from pathlib import Path

import polars as pl

pl.Config.set_tbl_rows(40)
pl.Config.set_tbl_cols(20)
pl.Config.set_fmt_str_lengths(60)
pl.Config.set_tbl_hide_dataframe_shape(True)
pl.Config.set_tbl_hide_column_data_types(True)

LEVELS = ["trusted", "watched", "throttled", "restricted", "quarantined"]


def json_lines(file, fields):
    """A table of these fields of a file of JSON lines; times become times."""
    lines = Path(file).read_text().splitlines() if file and Path(file).exists() else []
    rows = [{field: json.loads(line).get(field) for field in fields} for line in lines if line.strip()]
    schema = {field: pl.Utf8 for field in fields if field in ("time", "start", "end")}
    frame = pl.DataFrame(rows, schema_overrides=schema, infer_schema_length=None) if rows else pl.DataFrame(
        schema={field: pl.Utf8 for field in fields}
    )
    times = [pl.col(name).str.to_datetime(time_unit="ns", time_zone="UTC") for name in schema]
    return frame.with_columns(times) if rows else frame


class Outcome:
    """One run of `backtest`."""

    def __init__(self, out, labels="", changes=""):
        self.out = Path(out)
        self.labels_file, self.changes_file = labels, changes

    @classmethod
    def given(cls, name="OUT"):
        """The run that the environment names: OUT (or another variable), LABELS, CHANGES."""
        return cls(os.environ.get(name, "out"), os.environ.get("LABELS", ""), os.environ.get("CHANGES", ""))

    def scores(self):
        """The records that were scored, in the order of time."""
        return pl.scan_parquet(self.out / "scores.parquet").filter(pl.col("score_bits").is_not_null()).sort("time").collect()

    def labels(self):
        """Known attacks: start, end, kind, identities."""
        return json_lines(self.labels_file, ["start", "end", "kind", "identities"])

    def changes(self):
        """Honest changes of a generated mesh, in the same form."""
        return json_lines(self.changes_file, ["start", "end", "kind", "identities"])

    def transitions(self):
        """Every step on the ladder."""
        fields = ["time", "identity", "level", "previous", "evidence_bits", "threshold_bits", "cause", "reasons"]
        return json_lines(self.out / "trust.jsonl", fields)

    def entries(self):
        """Steps up the ladder on evidence."""
        steps = self.transitions()
        rank = pl.Enum(LEVELS + ["revoked"])
        levels = [pl.col(name).cast(rank).to_physical() for name in ("level", "previous")]
        return steps.filter((levels[0] > levels[1]) & (pl.col("cause") == "evidence")) if len(steps) else steps

    def report(self):
        return json.loads((self.out / "report.json").read_text())

    def evaluation(self):
        """What `lab evaluate` found."""
        return json.loads((self.out / "evaluation.json").read_text())

    def with_kinds(self, scores):
        """Scores with the kind of attack that each belongs to: none where no label is about its source and time."""
        kind = pl.lit(None, dtype=pl.Utf8)
        for label in self.labels().iter_rows(named=True):
            inside = pl.col("time").is_between(label["start"], label["end"]) & pl.col("source").is_in(label["identities"])
            kind = pl.when(inside).then(pl.lit(label["kind"])).otherwise(kind)
        return scores.with_columns(kind.alias("kind"))


def short(identity):
    """The last part of a name, for the axes of a plot."""
    return identity.rsplit("/", 1)[-1]
