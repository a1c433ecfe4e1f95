//! `qualm reload`: the new configuration is checked here, and then the running instance is told to read it.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use qualm_scorer::journal;
use rustix::process::{Pid, Signal, kill_process};

use crate::{cli::RunArgs, config::Config};

/// Runs the command.
///
/// # Errors
/// The configuration cannot be used, no instance runs on its state directory, or it may not be signalled.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    let (config, hash) = Config::read(&args.config).context("not reloaded, the old configuration stands")?;
    let directory = &config.state.directory;
    if !is_running(directory) {
        bail!(
            "no instance is running on {}; start one with `qualm run`, or name the configuration of the running one \
             with --config (and run this where its relative paths hold)",
            directory.display()
        );
    }
    let pid = pid(directory)?;
    kill_process(pid, Signal::HUP).with_context(|| {
        format!("process {} cannot be signalled; run this as the user that `qualm run` runs as", pid.as_raw_nonzero())
    })?;
    writeln!(
        io::stdout(),
        "told process {} to read {} (configuration {hash}): [budget], [lease], [enforce], [memory] and max_level hold \
         from the next batch on, inputs and ports from the next start; its log and its journal say when it is done",
        pid.as_raw_nonzero(),
        args.config.display()
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Whether an instance holds the journal of a state directory. A file with a pid alone outlives its process.
pub(crate) fn is_running(directory: &Path) -> bool {
    journal::is_in_use(&directory.join("journal"))
}

/// The process that wrote `qualm.pid`.
pub(crate) fn pid(directory: &Path) -> Result<Pid> {
    let file = directory.join("qualm.pid");
    let text = fs::read_to_string(&file)
        .with_context(|| format!("{}: cannot be read, so nobody can be told; restart `qualm run`", file.display()))?;
    let number: Option<i32> = text.trim().parse().ok().filter(|&number| number > 1);
    number
        .and_then(Pid::from_raw)
        .with_context(|| format!("{}: holds no process id; restart `qualm run`", file.display()))
}
