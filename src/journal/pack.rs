//! `qualm journal pack`: which records are about one decision, alert or identity, and the file that proves them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use qualm_model::time::{Span, Timestamp};
use qualm_scorer::{
    journal::{About, Kind, PackWriter, Record, Seq, SigningKey, read_from},
    notify::plain,
    verdict::{Cause, Verdict},
};
use serde::Deserialize;
use serde_json::Value;

use super::{DEPTH, directory, rfc3339};
use crate::{
    clock,
    config::Config,
    finding::{Findings, Setting},
    identities::{Chosen, choose, listed},
};

/// What was done by hand and by enforcement points so long before and after an episode belongs to it.
const AROUND: Span = Span(Span::HOUR.0);
/// Digits of a decision's id that name it.
const DIGITS: usize = 8;

/// `qualm journal pack`.
#[derive(Debug, Args)]
pub(crate) struct PackArgs {
    /// A decision's id, the id of an alert or incident, or an identity: the records of its episode, or all of them.
    about: String,
    /// The file to write; it must not exist yet.
    #[arg(long)]
    out: PathBuf,
    /// The configuration file: it says where the journal and the key that signs are.
    #[arg(long, default_value = "qualm.toml")]
    config: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// The journal or its key cannot be read, nothing is about what was asked for, or the file cannot be written.
pub(super) fn run(args: &PackArgs) -> Result<ExitCode> {
    let (config, _) = Config::read(&args.config)?;
    let journal = directory(None, &args.config)?;
    let file = config.state.journal_key();
    if !file.exists() {
        bail!("{}: there is no key yet; an instance makes it when it starts", file.display());
    }
    let key = SigningKey::open(&file)?;
    let choice = Choice::of(&args.about, &journal)?;
    let about = About::new(
        &args.about,
        choice.identities.iter().cloned().collect(),
        rfc3339(clock::system().now()),
        key.public(),
    );
    let file = OpenOptions::new().write(true).create_new(true).open(&args.out);
    let file = file.with_context(|| format!("{}: it must be new", args.out.display()))?;
    let written = write(&choice, &journal, (&about, &key), file);
    if written.is_err() {
        // Half of a pack is none.
        let _ = fs::remove_file(&args.out);
    }
    let (shown, unsealed) = written?;
    let mut out = io::stdout();
    writeln!(out, "{}: {shown} records about {}, signed by {}", args.out.display(), plain(&args.about), key.public())?;
    if unsealed > 0 {
        writeln!(
            out,
            "{unsealed} of them are under no signed checkpoint of the journal yet (there is one within a minute): the \
             signature of the pack alone vouches for them"
        )?;
    }
    writeln!(out, "verify it anywhere: qualm journal verify {} --key {}", args.out.display(), key.public())?;
    Ok(ExitCode::SUCCESS)
}

fn write(choice: &Choice, journal: &Path, (about, key): (&About, &SigningKey), file: File) -> Result<(usize, usize)> {
    let mut pack = PackWriter::begin(BufWriter::new(file), about)?;
    for record in read_from(journal, Seq(0))? {
        let record = record?;
        let is_shown = choice.shows(&record)?;
        pack.take(&record, is_shown)?;
    }
    let unsealed = pack.unsealed();
    Ok((pack.finish(key)?, unsealed))
}

/// What is to be shown.
#[derive(Debug, Default)]
struct Choice {
    identities: BTreeSet<String>,
    /// Ids that, wherever they stand in a record, make it part of the pack.
    ids: BTreeSet<String>,
    /// When, by the clock on the wall; always, where an identity was asked for.
    within: Option<(Timestamp, Timestamp)>,
}

/// Decisions of one identity and episode.
#[derive(Debug, Default)]
struct Episode {
    decisions: BTreeSet<String>,
    alerts: BTreeSet<String>,
    first: Timestamp,
    last: Timestamp,
}

/// What a command says of decisions.
#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    verdicts: Vec<Verdict>,
}

impl Choice {
    /// Whom or what the words mean.
    fn of(about: &str, journal: &Path) -> Result<Self> {
        let mut episodes: BTreeMap<(String, Timestamp), Episode> = BTreeMap::new();
        let mut findings = Findings::new(Setting::Live);
        let mut naming = BTreeSet::new();
        for record in read_from(journal, Seq(0))? {
            let record = record?;
            let verdicts = match record.kind {
                Kind::Decision => vec![record.payload()?],
                Kind::Command => record.payload::<Told>()?.verdicts,
                _ => Vec::new(),
            };
            for verdict in verdicts {
                let alert = findings.tell(&verdict).map(|finding| finding.uid);
                let episode = episodes.entry((verdict.identity.clone(), verdict.episode)).or_default();
                if episode.decisions.is_empty() {
                    episode.first = verdict.decided;
                }
                episode.last = episode.last.max(verdict.decided);
                episode.decisions.insert(verdict.decision.clone());
                episode.alerts.extend(alert);
                if verdict.cause != Cause::Ordered && says(&record, about)? {
                    naming.insert((verdict.identity, verdict.episode));
                }
            }
        }
        let by_decision = |of: &&Episode| about.len() >= DIGITS && of.decisions.iter().any(|id| id.starts_with(about));
        let by_alert = |of: &&Episode| of.alerts.contains(about);
        let chosen: Vec<_> = episodes.iter().filter(|(_, of)| by_decision(of) || by_alert(of)).collect();
        if !chosen.is_empty() {
            return Ok(Self::of_episodes(about, &chosen));
        }
        let names: BTreeSet<&String> = episodes.keys().map(|(identity, _)| identity).collect();
        match choose(about, &names.into_iter().collect::<Vec<_>>()) {
            Chosen::One(identity) => Ok(Self { identities: [identity].into(), ..Self::default() }),
            Chosen::Several(several) => {
                bail!("`{}` may be any of these; name one:\n{}", plain(about), listed(several.iter()))
            }
            Chosen::None => {
                // An id that records bear in whatever field, as that of an incident.
                let chosen: Vec<_> = episodes.iter().filter(|(key, _)| naming.contains(*key)).collect();
                if chosen.is_empty() {
                    bail!(
                        "`{}`: no decision, alert or incident of the journal has this id, and nothing was ever decided \
                         about anybody of this name; `qualm explain IDENTITY` tells ids",
                        plain(about)
                    );
                }
                Ok(Self::of_episodes(about, &chosen))
            }
        }
    }

    fn of_episodes(about: &str, chosen: &[(&(String, Timestamp), &Episode)]) -> Self {
        let first = chosen.iter().map(|(_, of)| of.first).min().unwrap_or_default();
        let last = chosen.iter().map(|(_, of)| of.last).max().unwrap_or_default();
        let ids = chosen.iter().flat_map(|(_, of)| of.decisions.iter().chain(&of.alerts)).cloned();
        Self {
            identities: chosen.iter().map(|((identity, _), _)| identity.clone()).collect(),
            ids: ids.chain([about.to_owned()]).collect(),
            within: Some((first - AROUND, last + AROUND)),
        }
    }

    fn shows(&self, record: &Record) -> Result<bool> {
        if record.kind == Kind::Seal {
            return Ok(false);
        }
        let is_then = self.within.is_none_or(|(from, to)| (from..=to).contains(&record.wall));
        let is_meant = |text: &str| self.ids.contains(text) || is_then && self.identities.contains(text);
        Ok(mentions(&record.payload()?, &is_meant, DEPTH))
    }
}

/// Whether a record has a text that is exactly this.
fn says(record: &Record, text: &str) -> Result<bool> {
    // Nearly none has, and a look at the bytes is cheap.
    Ok(record.json().contains(text) && mentions(&record.payload()?, &|found| found == text, DEPTH))
}

fn mentions(value: &Value, is_meant: &impl Fn(&str) -> bool, depth: usize) -> bool {
    match value {
        _ if depth == 0 => false,
        Value::String(text) => is_meant(text),
        Value::Object(members) => members.values().any(|value| mentions(value, is_meant, depth - 1)),
        Value::Array(values) => values.iter().any(|value| mentions(value, is_meant, depth - 1)),
        _ => false,
    }
}
