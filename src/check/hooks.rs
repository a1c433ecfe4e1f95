//! Hooks: whether each can be reached, and may do what it is for. Nothing is changed anywhere.

use qualm_hooks::policy::Source;

use super::Findings;
use crate::{clock, config::Config, policy};

pub(super) fn check(config: &Config, found: &mut Findings) {
    response(config, found);
    for of in &config.hook {
        let mode = if of.dry_run { ", dry run: it does nothing" } else { "" };
        let name = format!("{} ({}) from {} on{mode}", of.name, of.kind(), of.from);
        match of.build(&clock::system()) {
            Err(error) => found.fail("hook", error.to_string()),
            Ok(mut hook) => match hook.probe() {
                Ok(said) => found.ok("hook", format!("{name}: {said}")),
                Err(failure) => found.fail("hook", format!("{name}: {failure}")),
            },
        }
    }
}

/// The response policy: whether it compiles, and says something at every level.
fn response(config: &Config, found: &mut Findings) {
    let Some(file) = &config.response.policy else { return };
    if config.hook.is_empty() {
        found.warn("response", format!("{}: there is no [[hook]], so nobody asks it anything", file.display()));
    }
    // A hook that cannot be meant is told of by the configuration.
    let hooks = policy::facts(config).unwrap_or_default();
    match policy::read(config).and_then(|policy| policy.try_out(std::iter::empty(), &hooks)) {
        Ok(()) => found
            .ok("response", format!("{} answers at every level; `qualm policy test` runs your cases", file.display())),
        Err(problem) => {
            let meanwhile = match Source::kept(&config.state.directory) {
                Some(kept) => format!("the last good one ({}, {}) goes on", kept.policy_file, kept.hash()),
                None => "`qualm run` will not start with it".to_owned(),
            };
            found.fail("response", format!("{problem}; mend it and `qualm reload`; {meanwhile}"));
        }
    }
}
