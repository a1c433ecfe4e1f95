//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

/// Offline work on what Qualm has seen: how good a run was, and what to learn from it.
#[derive(Debug, Parser)]
#[command(name = "lab", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 2 the command line or an input is wrong (the message says which and what \
to do).\n\nRuns are made by `qualm backtest … --scores --out DIR`.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Figures of a run whose attacks are known: ranking, labels found and how soon, calibration. Also written to
    /// evaluation.json beside its scores.
    Evaluate(EvaluateArgs),
    /// Two runs side by side: their figures, and who was decided upon in one of them alone.
    Compare(CompareArgs),
    /// A history as a table: one row an identity and ten minutes, with what it did in them.
    Features(FeaturesArgs),
    /// Fit peers to such a table, and write the model file that `qualm run` and `qualm backtest` take with --model.
    Fit(FitArgs),
}

/// What one item of the collapsed ranking is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Per {
    /// A source and a destination.
    Edge,
    /// A source.
    Source,
}

#[derive(Debug, Args)]
pub(crate) struct EvaluateArgs {
    /// Directory that `qualm backtest --scores` wrote.
    pub(crate) out: PathBuf,
    /// Known attacks, JSON lines: start, end, kind, identities.
    #[arg(long, required_unless_present = "row_labels")]
    pub(crate) labels: Option<PathBuf>,
    /// A CSV with a label a row, plain, .gz or .zst: the backtest's inputs, in their order. May be given several times.
    #[arg(long, value_name = "FILE", conflicts_with = "labels", requires = "label_column")]
    pub(crate) row_labels: Vec<PathBuf>,
    /// The column of the label: its number from 0, or its name, which makes the first line of each file a header.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) label_column: Option<String>,
    /// The label of rows that belong to no attack. An empty one always means that.
    #[arg(long, value_name = "TEXT", default_value = "-", allow_hyphen_values = true)]
    pub(crate) harmless: String,
    /// What stands between two columns; `\t` is a tabulator.
    #[arg(long, default_value = ",")]
    pub(crate) delimiter: String,
    /// What lines that are no records begin with.
    #[arg(long, value_name = "CHARACTER")]
    pub(crate) comment: Option<char>,
    /// Kinds of attack whose rows are left out. May be given several times.
    #[arg(long, value_name = "KIND")]
    pub(crate) without: Vec<String>,
    /// What one item of the collapsed ranking is about.
    #[arg(long, value_enum, default_value = "edge")]
    pub(crate) per: Per,
    /// And in how many seconds: an item has the highest score of all its rows, and is odd if any of them is.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) window: u32,
    /// Print JSON, for scripts.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// A directory in which `lab evaluate` has left its evaluation.json.
    pub(crate) before: PathBuf,
    /// Another.
    pub(crate) after: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct FeaturesArgs {
    /// events.parquet of `qualm backtest --events`; any other .parquet with the columns time and source (and destination, operation,
    /// outcome, bytes_in, bytes_out, duration_s); or JSON lines with these names, plain, .gz or .zst.
    #[arg(required = true)]
    pub(crate) inputs: Vec<PathBuf>,
    /// The table to write.
    #[arg(long, default_value = "features.parquet")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct FitArgs {
    /// A table that `lab features` wrote.
    pub(crate) features: PathBuf,
    /// The model file to write.
    #[arg(long, default_value = "peers.model")]
    pub(crate) out: PathBuf,
}
