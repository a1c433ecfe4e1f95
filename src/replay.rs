//! `qualm replay`: decisions recomputed from what their records hold, and held against what was decided. It only reads,
//! also while an instance writes.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Result, bail};
use clap::Args;
use qualm_scorer::{
    grounds::replay::{Replayed, is_of_this_model, replay, replay_order},
    journal::{Kind, Record, Seq, read_from},
    operator::Instruction,
    verdict::Verdict,
};
use serde::Deserialize;

use crate::journal::{FOUND, directory, rfc3339};

/// `qualm replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The decision's id, or its first digits; every record of it is recomputed: entry, renewals, end.
    #[arg(required_unless_present = "all")]
    decision: Option<String>,
    /// Every decision that the journal holds; only what differs is listed.
    #[arg(long, conflicts_with = "decision")]
    all: bool,
    /// The journal's directory; otherwise `journal` in the `directory` of section `state` of the configuration.
    #[arg(long, value_name = "DIRECTORY")]
    journal: Option<PathBuf>,
    /// The configuration file.
    #[arg(long, default_value = "qualm.toml")]
    config: PathBuf,
}

/// What a record says of decisions.
#[derive(Deserialize)]
struct Told {
    instruction: Option<Instruction>,
    #[serde(default)]
    verdicts: Vec<Verdict>,
}

#[derive(Default)]
struct Counts {
    identical: u64,
    different: u64,
    without: u64,
}

/// Runs the command.
///
/// # Errors
/// The journal cannot be read, or has no such decision.
pub(crate) fn run(args: &ReplayArgs) -> Result<ExitCode> {
    let directory = directory(args.journal.as_ref(), &args.config)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut counts = Counts::default();
    for record in read_from(&directory, Seq(0))? {
        let record = record?;
        let (instruction, verdicts) = decisions(&record)?;
        let wanted = |verdict: &&Verdict| args.decision.as_deref().is_none_or(|id| verdict.decision.starts_with(id));
        for verdict in verdicts.iter().filter(wanted) {
            let replayed = match &instruction {
                Some(instruction) => replay_order(instruction, verdict),
                None => replay(verdict),
            };
            tell(&mut out, (&record, verdict, &replayed), args.all, &mut counts)?;
        }
    }
    let Counts { identical, different, without } = counts;
    if identical + different + without == 0 {
        match &args.decision {
            Some(id) => bail!("{}: no decision `{id}`; `qualm explain IDENTITY` tells the ids", directory.display()),
            None => bail!("{}: no decisions", directory.display()),
        }
    }
    writeln!(out, "{identical} identical, {different} different, {without} without inputs")?;
    out.flush()?;
    Ok(if different > 0 { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}

/// The decisions of a record, and the instruction that they follow from.
fn decisions(record: &Record) -> Result<(Option<Instruction>, Vec<Verdict>)> {
    Ok(match record.kind {
        Kind::Decision => (None, vec![record.payload()?]),
        Kind::Command => {
            let told: Told = record.payload()?;
            (told.instruction, told.verdicts)
        }
        _ => (None, Vec::new()),
    })
}

fn tell(
    out: &mut impl Write,
    (record, verdict, replayed): (&Record, &Verdict, &Replayed),
    only_different: bool,
    counts: &mut Counts,
) -> Result<()> {
    let of = match replayed {
        Replayed::Identical => &mut counts.identical,
        Replayed::Differs(_) => &mut counts.different,
        Replayed::NoInputs | Replayed::Newer(_) => &mut counts.without,
    };
    *of += 1;
    if only_different && !matches!(replayed, Replayed::Differs(_)) {
        return Ok(());
    }
    write!(
        out,
        "record {} {} {} {}: {} after {}: ",
        record.seq,
        rfc3339(record.wall),
        verdict.decision,
        qualm_scorer::notify::plain(&verdict.identity),
        verdict.level,
        verdict.previous
    )?;
    match replayed {
        Replayed::Identical => writeln!(out, "identical")?,
        Replayed::NoInputs => writeln!(
            out,
            "cannot be recomputed: its record holds no inputs (a release before kept none, or it ended by itself what an operator had set)"
        )?,
        Replayed::Newer(version) => writeln!(
            out,
            "cannot be recomputed: its inputs have version {version}; use the release that runs this instance"
        )?,
        Replayed::Differs(differences) => {
            let by_another = if is_of_this_model(verdict) { "" } else { " (another release has decided it)" };
            writeln!(out, "DIFFERENT{by_another}")?;
            for of in differences {
                writeln!(out, "  {}: recorded {}, recomputed {}", of.field, of.recorded, of.recomputed)?;
            }
        }
    }
    Ok(())
}
