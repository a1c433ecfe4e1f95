//! `qualm`: wiring only. What is decided is decided in `scorer`, what is normal is known in `model`.

mod backtest;
mod check;
mod cli;
mod clock;
mod config;
mod demo;
mod explain;
mod finding;
mod formats;
mod generate;
mod listen;
mod look;
mod observability;
mod reload;
mod run;
mod wire;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

/// It had started and failed.
const FAILED: u8 = 1;
/// The command line, the configuration or an input is wrong.
const WRONG_INPUT: u8 = 2;

#[expect(clippy::print_stderr, reason = "this is where a person is told why it failed")]
fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Backtest(args) => backtest::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Formats(args) => formats::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Look(args) => look::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Wire(args) => wire::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("qualm: {error:#}");
        ExitCode::from(if error.is::<run::WhileRunning>() { FAILED } else { WRONG_INPUT })
    })
}
