//! `qualm policy test`: a user's cases against the response policy. It asks nobody and changes nothing.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use qualm_hooks::{
    config::{HookConfig, InvalidHook},
    policy::{HookFact, Policy, cases},
};

use crate::{clock, config::Config};

/// A case has failed.
const FAILED: u8 = 3;

/// What can be asked of the response policy.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Run cases against the policy and the hooks of a configuration. Exit code 3 where it says something else.
    Test(TestArgs),
}

/// `qualm policy test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Files of cases: a JSON list of {name, order: {principal, level, …}, expect: [{hook, approval, approvers, lease_s}]}.
    #[arg(required = true)]
    cases: Vec<PathBuf>,
    /// The configuration file.
    #[arg(long, default_value = "qualm.toml")]
    config: PathBuf,
}

/// What the policy is told of the configured hooks.
///
/// # Errors
/// One cannot be meant.
pub(crate) fn facts(config: &Config) -> Result<Vec<HookFact>, InvalidHook> {
    let fact = |of: &HookConfig| Ok(HookFact::of(of, &of.rules(of.build(&clock::system())?.nature())));
    config.hook.iter().map(fact).collect()
}

/// The policy that a configuration names.
///
/// # Errors
/// It cannot be read, or does not compile: file, line, what is wrong.
pub(crate) fn read(config: &Config) -> Result<Policy, String> {
    Policy::compile(config.response.read()?.as_ref())
}

/// Runs the command.
///
/// # Errors
/// Configuration, policy or cases cannot be read.
pub(crate) fn run(command: &PolicyCommand) -> Result<ExitCode> {
    let PolicyCommand::Test(args) = command;
    let (config, _) = Config::read(&args.config)?;
    let hooks = facts(&config).with_context(|| args.config.display().to_string())?;
    let policy = read(&config).map_err(anyhow::Error::msg)?;
    let mut out = io::stdout().lock();
    if matches!(policy, Policy::BuiltIn) {
        writeln!(out, "[response] names no policy: each hook acts from its own `from` on")?;
    }
    let (mut passed, mut failed) = (0, 0);
    for file in &args.cases {
        for case in cases::run(&policy, file, &hooks).map_err(anyhow::Error::msg)? {
            match case.problem {
                None => {
                    passed += 1;
                    writeln!(out, "ok    {}", case.name)?;
                }
                Some(problem) => {
                    failed += 1;
                    writeln!(out, "FAIL  {}: {problem}", case.name)?;
                }
            }
        }
    }
    writeln!(out, "\n{passed} passed, {failed} failed")?;
    Ok(if failed > 0 { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}
