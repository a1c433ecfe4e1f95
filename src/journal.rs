//! `qualm journal`: the journal verified, exported as JSON lines, and packed as evidence. It only reads, also while an
//! instance writes.

mod pack;

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use qualm_model::time::{Span, Timestamp};
use qualm_scorer::journal::{
    Digest, JournalError, Kind, PublicKey, Record, Seq, Verified, read_from, verify, verify_pack, verify_signed,
};
use serde_json::{Value, json};

use crate::{clock, config::Config, operate::args::length};

/// Something was found.
pub(crate) const FOUND: u8 = 3;
/// Depth at which names in a record are looked for.
const DEPTH: usize = 8;

/// What can be asked of the journal.
#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// Check every record: whether any was changed, is missing or stands elsewhere, and whether it was signed; or an
    /// evidence pack, which needs the public key alone. Exit code 3 where something is wrong.
    Verify(VerifyArgs),
    /// Print records as JSON lines, each checked before it is printed.
    Export(ExportArgs),
    /// Write all that is about one decision, alert or identity into one signed file that verifies offline.
    Pack(pack::PackArgs),
}

/// `qualm journal verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The journal's directory, or the file of an evidence pack; otherwise `journal` in the `directory` of section
    /// `state` of the configuration.
    directory: Option<PathBuf>,
    /// The public key that must have signed, as `qualm check` prints it, or a file with it. Whoever can write the files
    /// can make a chain of hashes anew; without the private key nobody can sign it.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// A record known from elsewhere, as an earlier `verify` told it: `NUMBER:HASH`. It must still be there, which shows
    /// that nothing was cut off the end or written anew.
    #[arg(long, value_name = "NUMBER:HASH")]
    head: Option<Head>,
    /// The configuration file.
    #[arg(long, default_value = "qualm.toml")]
    config: PathBuf,
}

/// `qualm journal export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The journal's directory; otherwise `journal` in the `directory` of section `state` of the configuration.
    directory: Option<PathBuf>,
    /// Only what was written since then: RFC 3339, as 2026-11-23T08:00:00Z, or so long ago, as "2h".
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only records that name an identity which contains this.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// The configuration file.
    #[arg(long, default_value = "qualm.toml")]
    config: PathBuf,
}

/// A record's number and hash.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Head(Seq, Digest);

impl std::str::FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once(':')
            .and_then(|(number, hash)| Some(Self(Seq(number.parse().ok()?), Digest::from_hex(hash.as_bytes()).ok()?)));
        parsed.ok_or_else(|| "write the number and 64 hex digits, as `qualm journal verify` tells them".to_owned())
    }
}

/// Runs the command.
///
/// # Errors
/// The journal cannot be read, or an argument cannot be used.
pub(crate) fn run(command: &JournalCommand) -> Result<ExitCode> {
    match command {
        JournalCommand::Verify(args) => verified(args),
        JournalCommand::Export(args) => export(args),
        JournalCommand::Pack(args) => pack::run(args),
    }
}

pub(crate) fn directory(given: Option<&PathBuf>, config: &Path) -> Result<PathBuf> {
    let directory = match given {
        Some(directory) => directory.clone(),
        None => {
            let (config, _) = Config::read(config).context("or name the journal's directory")?;
            config.state.directory.join("journal")
        }
    };
    if !directory.is_dir() {
        bail!("{}: is no directory; name that of the journal, or the configuration with --config", directory.display());
    }
    Ok(directory)
}

/// A public key as it is given: itself, or a file with it.
fn public_key(given: &str) -> Result<PublicKey> {
    let read = || fs::read_to_string(given).with_context(|| format!("--key {given}: neither a key nor a file"));
    let text = if given.starts_with("ed25519:") { given.to_owned() } else { read()? };
    text.parse().with_context(|| format!("--key {given}"))
}

fn verified(args: &VerifyArgs) -> Result<ExitCode> {
    let key = args.key.as_deref().map(public_key).transpose()?;
    if let Some(file) = args.directory.as_ref().filter(|given| given.is_file()) {
        let Some(key) = key else { bail!("{}: an evidence pack is verified with --key", file.display()) };
        return verified_pack(file, &key);
    }
    let directory = directory(args.directory.as_ref(), &args.config)?;
    let mut out = io::stdout();
    let verified = key.as_ref().map_or_else(|| verify(&directory), |key| verify_signed(&directory, key));
    let found = match verified {
        Ok(found) => found,
        Err(error @ (JournalError::Damaged { .. } | JournalError::Cut { .. } | JournalError::Unsigned { .. })) => {
            writeln!(out, "damaged: {error}")?;
            return Ok(ExitCode::from(FOUND));
        }
        Err(error) => return Err(error.into()),
    };
    let Some(first) = found.first else {
        writeln!(out, "{}: no records", directory.display())?;
        return Ok(ExitCode::from(if args.head.is_some() { FOUND } else { 0 }));
    };
    if let Some(Head(seq, hash)) = &args.head {
        let record = read_from(&directory, *seq)?.next().transpose()?;
        if !record.is_some_and(|record| record.seq == *seq && record.hash == *hash) {
            writeln!(
                out,
                "damaged: there is no record {seq} with the hash {hash} (it has {first} to {}): the journal was cut off \
                 or written anew since, or record {seq} has gone with its oldest files",
                found.head.seq
            )?;
            return Ok(ExitCode::from(FOUND));
        }
    }
    writeln!(
        out,
        "sound: {} records, {first} to {}, in {} files: each hash fits, and each record follows the one before it",
        found.records, found.head.seq, found.segments
    )?;
    tell_signers(&mut out, &found, key.as_ref())?;
    if found.unwritten > 0 {
        writeln!(
            out,
            "{} records were refused by the disk when they were due; gap records say which",
            found.unwritten
        )?;
    }
    if let Some(torn) = &found.torn {
        writeln!(
            out,
            "the last line is torn, as by the end of a process: {} bytes that nobody was told were on disk",
            torn.bytes
        )?;
    }
    writeln!(
        out,
        "head {}:{} (kept elsewhere it shows, with --head, that nothing was cut off)",
        found.head.seq, found.head.hash
    )?;
    Ok(ExitCode::SUCCESS)
}

fn tell_signers(out: &mut impl io::Write, found: &Verified, key: Option<&PublicKey>) -> io::Result<()> {
    let Verified { seals, unsigned, .. } = found;
    match (key, found.signers.as_slice()) {
        (_, []) => writeln!(out, "no checkpoint is signed: whoever could write its files could have written it anew"),
        (Some(key), _) => {
            writeln!(out, "{seals} checkpoints, each signed by {key}; {unsigned} records follow the last")
        }
        (None, signers) => {
            let signers: Vec<String> = signers.iter().map(ToString::to_string).collect();
            let signers = signers.join(" and ");
            writeln!(
                out,
                "{seals} checkpoints are signed, by {signers} (say with --key whose they must be); {unsigned} records follow the last"
            )
        }
    }
}

/// An evidence pack by its key alone.
fn verified_pack(file: &Path, key: &PublicKey) -> Result<ExitCode> {
    let opened = File::open(file).with_context(|| file.display().to_string())?;
    let mut out = io::stdout();
    let pack = match verify_pack(BufReader::new(opened), key) {
        Ok(pack) => pack,
        Err(flaw) => {
            writeln!(out, "damaged: {}: {flaw}", file.display())?;
            return Ok(ExitCode::from(FOUND));
        }
    };
    writeln!(
        out,
        "sound: {} records about {}, made {}, signed by {key}; {} of them are under {} signed checkpoints of the journal",
        pack.records.len(),
        qualm_scorer::notify::plain(&pack.about.about),
        qualm_scorer::notify::plain(&pack.about.made),
        pack.records.len() - pack.unsealed,
        pack.seals
    )?;
    for record in &pack.records {
        writeln!(out, "{}", line(record, &record.payload()?)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn export(args: &ExportArgs) -> Result<ExitCode> {
    let directory = directory(args.directory.as_ref(), &args.config)?;
    let since = args.since.as_deref().map(moment).transpose()?;
    let mut out = BufWriter::new(io::stdout().lock());
    for record in read_from(&directory, Seq(0))? {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                // What was sound before it is out.
                out.flush()?;
                return Err(error.into());
            }
        };
        if since.is_some_and(|since| record.wall < since) {
            continue;
        }
        let payload: Value = record.payload()?;
        if args.identity.as_deref().is_some_and(|part| !names(&payload, part, DEPTH)) {
            continue;
        }
        if let Err(error) = writeln!(out, "{}", line(&record, &payload)?) {
            // Whoever reads has seen enough.
            return if error.kind() == io::ErrorKind::BrokenPipe { Ok(ExitCode::SUCCESS) } else { Err(error.into()) };
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn line(record: &Record, payload: &Value) -> Result<String> {
    let kind: Kind = record.kind;
    let line = json!({
        "seq": record.seq, "wall": rfc3339(record.wall), "event": rfc3339(record.event), "kind": kind,
        "payload": payload, "hash": record.hash,
    });
    Ok(serde_json::to_string(&line)?)
}

/// Whether a record names an identity that contains `part`.
fn names(value: &Value, part: &str, depth: usize) -> bool {
    let is_name = |key: &str| matches!(key, "identity" | "principal" | "subject");
    match value {
        _ if depth == 0 => false,
        Value::Object(members) => members.iter().any(|(key, value)| match value {
            Value::String(text) => is_name(key) && text.contains(part),
            value => names(value, part, depth - 1),
        }),
        Value::Array(values) => values.iter().any(|value| names(value, part, depth - 1)),
        _ => false,
    }
}

/// A time, or so long ago.
fn moment(text: &str) -> Result<Timestamp> {
    if let Ok(ago) = length(text) {
        return Ok(clock::system().now() - Span(ago.0));
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| {
        anyhow::anyhow!("--since {text}: write a time as 2026-11-23T08:00:00Z, or so long ago as \"2h\"")
    })?;
    Ok(Timestamp(i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)))
}

pub(crate) fn rfc3339(time: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time.0)).map_or_else(|_| time.0.to_string(), |time| time.to_string())
}
