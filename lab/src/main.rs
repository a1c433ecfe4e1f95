//! `lab`: what is done offline with what Qualm has seen. It is never part of the product's build.
//!
//! # Layout
//! - [`cli`]: what can be typed
//! - [`scores`]: `scores.parquet`; [`labels`], [`rows`]: which of its rows belong to a known attack
//! - [`ranking`]: how well a score ranks, in figures
//! - [`evaluate`]: all figures of one run; [`compare`]: two runs side by side
//! - [`history`], [`features`]: what was recorded, as a table of identities and windows; [`fit`]: a model file of it
//! - [`table`]: columns of text

mod cli;
mod compare;
mod evaluate;
mod features;
mod fit;
mod history;
mod labels;
mod ranking;
mod rows;
mod scores;
mod table;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;

use self::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Evaluate(args) => evaluate::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Features(args) => features::run(args),
        Command::Fit(args) => fit::run(args),
    };
    match done.and_then(|text| Ok(writeln!(io::stdout(), "{text}")?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told where standard error is closed.
            let _ = writeln!(io::stderr(), "lab: {error:#}");
            ExitCode::from(2)
        }
    }
}
