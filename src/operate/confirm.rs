//! A quarantine is rehearsed, and asked about, before it is made.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Result, bail};
use qualm_proto::operator::v1::RehearseResponse;
use qualm_scorer::notify::plain;

use super::{args::SetArgs, rehearsed::told, tell::length};

/// So many destinations and callers are named.
const NAMED: usize = 10;

/// Shows it on standard error, and asks.
///
/// # Errors
/// It is not confirmed.
pub(super) fn ask(identity: &str, rehearsal: Option<&RehearseResponse>, args: &SetArgs) -> Result<()> {
    let mut out = io::stderr();
    match rehearsal {
        Some(rehearsal) => out.write_all(told(rehearsal, NAMED)?.as_bytes())?,
        None => writeln!(out, "{} has made no call that was read", plain(identity))?,
    }
    if args.yes {
        return Ok(());
    }
    yes(&format!("quarantine it for {}? type yes: ", length(args.lease)))
}

/// Asks on standard error.
///
/// # Errors
/// It is not confirmed.
pub(super) fn yes(question: &str) -> Result<()> {
    let mut out = io::stderr();
    if !io::stdin().is_terminal() {
        bail!("not confirmed, nothing is done: standard input is no terminal; give --yes");
    }
    out.write_all(question.as_bytes())?;
    out.flush()?;
    let mut said = String::new();
    io::stdin().lock().read_line(&mut said)?;
    if said.trim() != "yes" {
        bail!("not confirmed, nothing is done");
    }
    Ok(())
}
