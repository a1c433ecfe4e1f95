//! `qualm`: wiring only. What is decided is decided in `scorer`, what is normal is known in `model`.

mod announcements;
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
mod identities;
mod journal;
mod listen;
mod look;
mod observability;
mod operate;
mod operator;
mod policy;
mod reload;
mod replay;
mod run;
mod signals;
mod wire;

use std::{io, process::ExitCode};

use clap::Parser;
use qualm_model::level::Level;

use crate::{
    cli::{Cli, Command},
    operate::hooks::Word,
};

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
        Command::List(args) => operate::list(&args),
        Command::Show(args) => operate::show(&args),
        Command::Rehearse(args) => operate::rehearse(&args),
        Command::Announce(args) => operate::announce(&args),
        Command::Accept(args) => operate::accept(&args),
        Command::Quarantine(args) => operate::set(&args, Level::Quarantined),
        Command::Restrict(args) => operate::set(&args, Level::Restricted),
        Command::Throttle(args) => operate::set(&args, Level::Throttled),
        Command::Watch(args) => operate::set(&args, Level::Watched),
        Command::Lift(args) => operate::lift(&args),
        Command::Pause(args) => operate::pause(&args),
        Command::Resume(args) => operate::resume(&args),
        Command::Hooks(command) => operate::hooks::run(&command),
        Command::Approve(args) => operate::hooks::say(&args, Word::Approve),
        Command::Reject(args) => operate::hooks::say(&args, Word::Reject),
        Command::Undo(args) => operate::hooks::say(&args, Word::Undo),
        Command::Policy(command) => policy::run(&command),
        Command::Journal(command) => journal::run(&command),
        Command::Replay(args) => replay::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        // Whoever reads has seen enough, as `head` has.
        let is_cut_off = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
        if error.downcast_ref::<io::Error>().is_some_and(is_cut_off) {
            return ExitCode::SUCCESS;
        }
        eprintln!("qualm: {error:#}");
        let failed = error.is::<run::WhileRunning>() || error.is::<operate::NotAnswered>();
        ExitCode::from(if failed { FAILED } else { WRONG_INPUT })
    })
}
