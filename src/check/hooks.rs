//! Hooks: whether each can be reached, and may do what it is for. Nothing is changed anywhere.

use super::Findings;
use crate::{clock, config::Config};

pub(super) fn check(config: &Config, found: &mut Findings) {
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
