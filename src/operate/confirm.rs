//! What a quarantine would deny, shown before it does.

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
};

use anyhow::{Result, bail};
use qualm_proto::operator::v1::ShowResponse;
use qualm_scorer::notify::plain;

use super::{args::SetArgs, tell::length};

/// So many peers are named.
const NAMED: usize = 10;

/// Shows it on standard error, and asks.
///
/// # Errors
/// It is not confirmed.
pub(super) fn ask(known: &ShowResponse, args: &SetArgs) -> Result<()> {
    let mut out = io::stderr();
    out.write_all(would_deny(known, args)?.as_bytes())?;
    if args.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        bail!("not confirmed, nothing is done: standard input is no terminal; give --yes");
    }
    write!(out, "quarantine it for {}? type yes: ", length(args.lease))?;
    out.flush()?;
    let mut said = String::new();
    io::stdin().lock().read_line(&mut said)?;
    if said.trim() != "yes" {
        bail!("not confirmed, nothing is done");
    }
    Ok(())
}

fn would_deny(known: &ShowResponse, args: &SetArgs) -> Result<String> {
    let mut text = String::new();
    let whom = match args.instance {
        Some(instance) => format!("the instance {instance} of {}", plain(&known.identity)),
        None => plain(&known.identity),
    };
    if known.peers.is_empty() {
        writeln!(text, "{whom} has called nobody within the last 24 hours that were read")?;
        return Ok(text);
    }
    let all = known.peers.len() + known.peers_left_out as usize;
    writeln!(text, "would deny every new call of {whom} to {all} it has called within 24 hours (usual calls a day):")?;
    for peer in known.peers.iter().take(NAMED) {
        writeln!(text, "  {:>10.0}  {}", peer.calls_a_day, plain(&peer.destination))?;
    }
    if all > NAMED {
        writeln!(text, "  and {} more; `qualm show` lists them", all - NAMED)?;
    }
    if args.instance.is_none() && known.instances.len() > 1 {
        let addresses: Vec<String> = known.instances.iter().take(NAMED).map(|address| plain(address)).collect();
        writeln!(
            text,
            "from all of its {} instances ({}); --instance means one",
            known.instances.len(),
            addresses.join(", ")
        )?;
    }
    Ok(text)
}
