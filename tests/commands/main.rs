//! The commands as a person types them: their help, what they say about a wrong configuration, and what `check`,
//! `explain` and `reload` answer. The real binary, its real files.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr)]

mod accepting;
mod checking;
mod configuration;
mod explaining;
mod hooking;
mod journal;
mod operating;
mod place;
mod policing;
mod reading;
#[path = "../../hooks/tests/support/server.rs"]
#[allow(dead_code, unreachable_pub, reason = "as the tests of hooks have it")]
mod recorder;
mod reloading;
mod resting;
mod signalling;
#[path = "../support/mod.rs"]
mod support;
