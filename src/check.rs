//! `qualm check`: a configuration and everything it needs, each with the remedy where something is wrong.
//!
//! # Layout
//! - [`hooks`]: whether each can be reached and may do what it is for
//! - [`inputs`]: topics, files, mappings, archives, sinks of alerts
//! - [`ports`]: certificates, who is listed, ports
//! - [`state`]: state directory, journal, snapshot, which levels are armed

mod hooks;
mod inputs;
mod ports;
mod state;

use std::{
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Result;
use qualm_model::{level::Level, time::Timestamp};
use qualm_scorer::config::Mode;

use crate::{cli::RunArgs, clock, config::Config, reload::is_running};

/// Something must be mended before `run` can do what the configuration says.
const TO_MEND: u8 = 3;

/// What became of one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// It is as it should be.
    Ok,
    /// It works, and there is something to know.
    Warn,
    /// It must be mended.
    Fail,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    outcome: Outcome,
    /// The section it is about.
    section: &'static str,
    text: String,
}

/// Everything that was found, in the order of the questions.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, section: &'static str, text: impl Into<String>) {
        self.push(Outcome::Ok, section, text.into());
    }

    fn warn(&mut self, section: &'static str, text: impl Into<String>) {
        self.push(Outcome::Warn, section, text.into());
    }

    fn fail(&mut self, section: &'static str, text: impl Into<String>) {
        self.push(Outcome::Fail, section, text.into());
    }

    fn push(&mut self, outcome: Outcome, section: &'static str, text: String) {
        self.0.push(Finding { outcome, section, text });
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.0.iter().filter(|finding| finding.outcome == outcome).count()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::Ok => "ok",
            Outcome::Warn => "warn",
            Outcome::Fail => "fail",
        };
        write!(f, "{outcome:<5} {:<9} {}", self.section, self.text)
    }
}

/// Runs the command.
///
/// # Errors
/// Only when its own output cannot be written.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    let mut found = Findings::default();
    match Config::read(&args.config) {
        Ok((config, hash)) => {
            found.ok("config", format!("{} is valid (configuration {hash})", args.config.display()));
            check(&config, &hash, clock::system().now(), &mut found);
        }
        Err(error) => found.fail("config", error.to_string()),
    }
    let mut out = io::stdout().lock();
    for finding in &found.0 {
        writeln!(out, "{finding}")?;
    }
    let (failed, warned) = (found.count(Outcome::Fail), found.count(Outcome::Warn));
    writeln!(out, "\n{failed} to mend, {warned} to know, {} as they should be", found.count(Outcome::Ok))?;
    Ok(if failed > 0 { ExitCode::from(TO_MEND) } else { ExitCode::SUCCESS })
}

fn check(config: &Config, hash: &str, now: Timestamp, found: &mut Findings) {
    let running = is_running(&config.state.directory);
    inputs::check(config, found);
    ports::check(config, running, now, found);
    enforcement(config, found);
    hooks::check(config, found);
    peers(config, found);
    let clustered = state::check(config, hash, (running, now), found);
    inputs::clusters(config, &clustered, found);
}

/// Who is held against whom.
fn peers(config: &Config, found: &mut Findings) {
    match config.peers.read() {
        Ok(None) if config.peers.background => {
            found.ok("peers", "are fitted in the background, every day of event time");
        }
        Ok(None) => {}
        Ok(Some(model)) => found.ok(
            "peers",
            format!(
                "{}: {} groups, fitted to {} windows of {} identities",
                config.peers.model.display(),
                model.peers.groups.len().saturating_sub(1),
                model.windows,
                model.identities
            ),
        ),
        Err(error) => found.fail("peers", error.to_string()),
    }
}

/// What may be done, and to whom never.
fn enforcement(config: &Config, found: &mut Findings) {
    let enforce = &config.enforce;
    match enforce.mode {
        Mode::Shadow => {
            found.ok("enforce", "mode shadow: what would be denied is marked in the mesh's own log, nobody is denied");
        }
        Mode::Enforce => found.ok(
            "enforce",
            format!(
                "mode enforce: levels act, on at most {:.1} % of all identities, {:.0} % of the mesh's usual calls and \
                 {:.0} % of a service's replicas at once",
                enforce.max_share * 100.0,
                enforce.max_traffic_share * 100.0,
                enforce.max_replica_share * 100.0
            ),
        ),
    }
    match (enforce.mode, enforce.protected.as_slice()) {
        (Mode::Enforce, []) => found.warn(
            "enforce",
            "nobody is protected: also the mesh's own control plane may be denied; list it in `protected`",
        ),
        (_, protected) => found.ok("enforce", format!("never denied: {}", protected.join(", "))),
    }
    let budget = Level::BY_BEHAVIOUR.map(|level| format!("{level} {:.3}", config.budget.per_day(level)));
    found.ok("budget", format!("wrongful entries a day, for the whole mesh: {}", budget.join(", ")));
}
