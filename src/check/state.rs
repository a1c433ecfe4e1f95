//! State directory, journal and snapshot; which levels are armed and when the next will be.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use qualm_model::{level::Level, time::Timestamp};
use qualm_scorer::{
    config::arms_at,
    journal::{self, Kind, Seq, SigningKey},
    scorer::Scorer,
    snapshot::{Intake, Snapshots},
    verdict::Verdict,
};
use serde::Deserialize;

use super::Findings;
use crate::{
    config::Config,
    run::{intake, quirks, realised::Realised},
};

/// How long a running instance may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// No answer is longer.
const LONGEST_ANSWER: u64 = 1 << 20;

/// Returns the inputs whose records name their cluster, as far as any were read.
pub(super) fn check(
    config: &Config,
    hash: &str,
    (running, now): (bool, Timestamp),
    found: &mut Findings,
) -> Vec<String> {
    let directory = &config.state.directory;
    if !directory.exists() {
        missing(directory, found);
        return Vec::new();
    }
    match tempfile::tempfile_in(directory) {
        Ok(_) => found.ok("state", format!("{} is writable", directory.display())),
        Err(error) => found.fail("state", format!("{}: {error}; make it writable by this user", directory.display())),
    }
    verify(&directory.join("journal"), hash, running, found);
    realised(&directory.join("journal"), config, now, found);
    let key = config.state.journal_key();
    if key.exists() {
        match SigningKey::open(&key) {
            Ok(signing) => {
                found.ok("journal", format!("signed with {}: the public key is {}", key.display(), signing.public()));
            }
            Err(error) => found.fail("journal", error.to_string()),
        }
    }
    if running {
        found.ok("state", format!("an instance is running on {}", directory.display()));
        return ask(config.observe.address, found);
    }
    if !directory.join("snapshot.redb").exists() {
        found.ok("state", "no snapshot yet: the first start reads history, and arms no level before it has enough");
        return Vec::new();
    }
    snapshot(config, found)
}

fn snapshot(config: &Config, found: &mut Findings) -> Vec<String> {
    match Snapshots::open(&config.state.directory, config.scorer()) {
        Err(error) => found.fail("state", error.to_string()),
        Ok((_, None)) => found.ok("state", "the snapshot is empty: the next start reads history"),
        Ok((_, Some(loaded))) => {
            let tally = loaded.scorer.tally();
            found.ok("state", format!("the snapshot is sound: {} identities, {} edges", tally.identities, tally.edges));
            let shared = loaded.scorer.shared_principals();
            if shared.principals > 0 {
                found.ok("state", format!(
                    "{} principals are shared by {} workloads: each is judged on its own, and what is not narrowed to one \
                     instance is not enforced; a service account of its own for each lets rules be about one",
                    shared.principals, shared.workloads
                ));
            }
            intake(&loaded.covered.intake, config, found);
            left_out(loaded.scorer, config, found);
            return intake::clustered(&loaded.covered.intake);
        }
    }
    Vec::new()
}

/// A directory that is yet to be made.
fn missing(directory: &Path, found: &mut Findings) {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let above = absolute.ancestors().skip(1).find(|above| above.exists()).unwrap_or(Path::new("/"));
    match tempfile::tempfile_in(above) {
        Ok(_) => found.ok("state", format!("{} will be made at the first start", directory.display())),
        Err(error) => found.fail(
            "state",
            format!(
                "{} cannot be made in {}: {error}; make it, and writable by this user",
                directory.display(),
                above.display()
            ),
        ),
    }
}

fn verify(directory: &Path, hash: &str, running: bool, found: &mut Findings) {
    if !directory.exists() {
        return;
    }
    match journal::verify(directory) {
        Err(error) => found.fail("journal", error.to_string()),
        Ok(verified) => {
            let head = verified.head.hash.to_string();
            found.ok(
                "journal",
                format!(
                    "{} records in {} files, each hash fits; it ends at {} {}",
                    verified.records,
                    verified.segments,
                    verified.head.seq,
                    &head[..16]
                ),
            );
            match verified.signers.as_slice() {
                [] => found.ok("journal", "it has no signed checkpoint yet; the next start signs it"),
                signers => {
                    let signers: Vec<_> = signers.iter().map(ToString::to_string).collect();
                    found.ok(
                        "journal",
                        format!(
                            "{} signed checkpoints, by {}; {} records follow the last",
                            verified.seals,
                            signers.join(" and "),
                            verified.unsigned
                        ),
                    );
                }
            }
            if verified.unwritten > 0 {
                found.warn(
                    "journal",
                    format!("the disk once refused {} records, as the journal itself says", verified.unwritten),
                );
            }
            // A running instance may be in the middle of a line.
            if let Some(torn) = verified.torn.filter(|_| !running) {
                let text =
                    format!("{}: its last record was torn by a crash; the next start cuts it off", torn.path.display());
                found.warn("journal", text);
            }
        }
    }
    for Changed { input, before, after, since } in format_changes(directory) {
        found.warn("inputs", format!("{input}: {before} until {since}, {after} since then"));
    }
    let told = last_config(directory);
    if running && told.as_deref().is_some_and(|told| told != hash) {
        found.warn(
            "config",
            "the running instance has read another configuration; `qualm reload` makes it read this one",
        );
    }
}

/// What the budget has come to, as the journal has it.
fn realised(directory: &Path, config: &Config, now: Timestamp, found: &mut Findings) {
    let Ok(records) = journal::read_from(directory, Seq(0)) else { return };
    let mut realised = Realised::default();
    for record in records.map_while(Result::ok) {
        realised.known_since(record.wall);
        if record.kind == Kind::Decision
            && let Ok(verdict) = record.payload::<Verdict>()
        {
            realised.note(&verdict);
        }
    }
    for level in Level::BY_BEHAVIOUR {
        let Some(counted) = realised.of(level, now) else { continue };
        match counted.told(level, config.budget.per_day(level)) {
            (text, true) => found.warn("budget", text),
            (text, false) => found.ok("budget", text),
        }
    }
}

/// Changes of format that are told of.
const CHANGES: usize = 5;

/// A change of an input's format, as the journal has it.
#[derive(Debug, Deserialize)]
struct Changed {
    input: String,
    before: String,
    after: String,
    since: String,
}

/// The latest of them.
fn format_changes(directory: &Path) -> Vec<Changed> {
    let Ok(records) = journal::read_from(directory, Seq(0)) else { return Vec::new() };
    let commands = records.map_while(Result::ok).filter(|record| record.kind == Kind::Command);
    let mut changes: Vec<Changed> = commands.filter_map(|record| record.payload().ok()).collect();
    changes.drain(..changes.len().saturating_sub(CHANGES));
    changes
}

/// What became of the records of each input of a stopped instance.
fn intake(saved: &BTreeMap<String, Intake>, config: &Config, found: &mut Findings) {
    let names = config.source_names();
    for (name, intake) in saved.iter().filter(|(name, _)| names.contains(name)) {
        found.ok("inputs", intake::told(name, intake));
        for note in intake::notes(name, intake) {
            found.warn("inputs", note);
        }
    }
}

/// What the inputs of a stopped instance seem to leave out, and which levels are armed.
fn left_out(mut scorer: Scorer, config: &Config, found: &mut Findings) {
    scorer.filter_sources(config.filters());
    scorer.scale_counts(config.calls_a_record());
    scorer.wait_for_sources(config.latenesses());
    for note in quirks::filtered(&scorer, &config.source_names()) {
        found.warn("inputs", note);
    }
    armed(&scorer, found);
}

/// The configuration that was last read, as its journal has it.
fn last_config(directory: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Command {
        config: Option<String>,
    }
    let commands = journal::read_from(directory, Seq(0)).ok()?.map_while(Result::ok);
    let commands = commands.filter(|record| matches!(record.kind, Kind::Command | Kind::Checkpoint));
    commands.filter_map(|record| record.payload::<Command>().ok()?.config).last()
}

fn armed(scorer: &Scorer, found: &mut Findings) {
    let armed = scorer.armed();
    for level in Level::BY_BEHAVIOUR {
        let due = scorer.birth().map(|birth| arms_at(level, birth));
        describe(level, armed.contains(&level), due.and_then(rfc3339).as_deref(), found);
    }
}

fn describe(level: Level, armed: bool, due: Option<&str>, found: &mut Findings) {
    match (armed, due) {
        (true, _) => found.ok("levels", format!("{level} is armed")),
        (false, Some(due)) => {
            found.warn(
                "levels",
                format!("{level} is not armed yet: at {due} of event time at the earliest, and with enough episodes"),
            );
        }
        (false, None) => found.warn("levels", format!("{level} is not armed yet: there was no event so far")),
    }
}

fn rfc3339(time: Timestamp) -> Option<String> {
    jiff::Timestamp::from_nanosecond(i128::from(time.0)).ok().map(|time| time.to_string())
}

/// What `/readyz` says.
#[derive(Debug, Deserialize)]
struct Ready {
    ready: bool,
    reasons: Vec<String>,
    #[serde(default)]
    notes: Vec<String>,
    levels: Vec<Armed>,
    #[serde(default)]
    inputs: Vec<String>,
    #[serde(default)]
    clustered: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Armed {
    level: Level,
    armed: bool,
    #[serde(default)]
    due: Option<String>,
}

/// Asks the running instance.
fn ask(address: SocketAddr, found: &mut Findings) -> Vec<String> {
    let answer = get(address).and_then(|body| serde_json::from_slice::<Ready>(&body).map_err(io::Error::other));
    match answer {
        Err(error) => {
            found.fail("observe", format!("http://{address}/readyz: {error}; is another program on that port?"));
            Vec::new()
        }
        Ok(Ready { ready, reasons, notes, levels, inputs, clustered }) => {
            match ready {
                true => found.ok("observe", format!("http://{address}/readyz: ready")),
                false => found.warn("observe", format!("http://{address}/readyz: not ready: {}", reasons.join("; "))),
            }
            for note in notes {
                found.warn("observe", note);
            }
            for input in inputs {
                found.ok("inputs", input);
            }
            for Armed { level, armed, due } in levels {
                describe(level, armed, due.as_deref(), found);
            }
            clustered
        }
    }
}

fn get(address: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    let end =
        answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").ok_or_else(|| io::Error::other("no HTTP answer"))?;
    Ok(answer.split_off(end + 4))
}
