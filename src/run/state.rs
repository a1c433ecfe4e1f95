//! Snapshot and journal at start: what was known, and what was already decided.

use std::{fs, path::Path};

use anyhow::Context;
use qualm_model::time::Timestamp;
use qualm_scorer::{
    journal::{Journal, JournalLimits, Kind, read_from},
    notify::Outstanding,
    scorer::Scorer,
    snapshot::{Covered, Snapshots},
    table::TrustTable,
    verdict::Verdict,
};

use crate::{
    config::Config,
    finding::{Findings, Setting},
};

/// Everything that survives.
pub(crate) struct State {
    pub(crate) scorer: Scorer,
    pub(crate) covered: Covered,
    pub(crate) snapshots: Snapshots,
    pub(crate) journal: Journal,
    /// Alerts that were due and not delivered when the last run ended.
    pub(crate) outstanding: Outstanding,
    /// Episodes that were open.
    pub(crate) findings: Findings,
    /// Whether there was a snapshot.
    pub(crate) restored: bool,
    /// Highest number of the journal at start.
    pub(crate) last_seq: u64,
    /// What was enforced and is a shadow under this configuration: to be journalled and told.
    pub(crate) restricted: Vec<Verdict>,
    /// Whether the snapshot knew of records that the journal does not have.
    pub(crate) is_ahead: bool,
}

impl State {
    /// The trust table as it stands, under the number of the journal's record `version`.
    pub(crate) fn table(&self, version: u64, hash: &str) -> TrustTable {
        let model_version = format!("{}-{hash}", env!("CARGO_PKG_VERSION"));
        TrustTable { version, entries: self.scorer.entries(), model_version }
    }
}

/// Opens the state directory.
pub(crate) fn open(config: &Config, hash: &str, wall: Timestamp) -> anyhow::Result<State> {
    let directory = &config.state.directory;
    fs::create_dir_all(directory).with_context(|| format!("[state] directory {}", directory.display()))?;
    let (snapshots, loaded) = Snapshots::open(directory, config.scorer())?;
    let restored = loaded.is_some();
    let (mut scorer, mut covered) = loaded.map_or_else(
        || (Scorer::new(config.scorer()), Covered::default()),
        |mut loaded| {
            for input in loaded.renumber(&config.source_names()) {
                tracing::warn!(input, "is no longer read; its positions are dropped");
            }
            (loaded.scorer, loaded.covered)
        },
    );
    scorer.limit_sources(config.max_levels());
    let journal_directory = directory.join("journal");
    let opened = Journal::open(&journal_directory, &JournalLimits::default())?;
    if let Some(torn) = &opened.torn {
        tracing::warn!(?torn, "the last record of the journal was torn by the end of the last run and is cut off");
    }
    let is_ahead = covered.journal > opened.head.seq.0 + 1;
    if is_ahead {
        tracing::warn!(covered = covered.journal, head = %opened.head.seq, "the journal has lost records that the snapshot knows of");
        covered.journal = opened.head.seq.0 + 1;
    }
    let (outstanding, findings, taken) = replay(&journal_directory, config, &mut scorer, &covered)?;
    // What stood under the last configuration stands as far as this one allows it.
    let mut restricted = Vec::new();
    scorer.restrict(wall, &mut restricted);
    let standing = scorer.entries().len();
    tracing::info!(restored, taken, standing, config = hash, "state");
    write_pid(directory)?;
    Ok(State {
        scorer,
        covered,
        snapshots,
        journal: opened.journal,
        outstanding,
        findings,
        restored,
        restricted,
        last_seq: opened.head.seq.0,
        is_ahead,
    })
}

/// Takes over the decisions that are younger than the snapshot, and finds the alerts that were not delivered.
fn replay(
    directory: &Path,
    config: &Config,
    scorer: &mut Scorer,
    covered: &Covered,
) -> anyhow::Result<(Outstanding, Findings, usize)> {
    let sinks = config.alerts.sinks();
    let (mut outstanding, mut findings, mut taken) = (Outstanding::default(), Findings::new(Setting::Live), 0);
    for record in read_from(directory, qualm_scorer::journal::Seq(0))? {
        let record = record?;
        match record.kind {
            Kind::Decision => {
                let verdict: Verdict = record.payload().context("a decision of the journal")?;
                findings.tell(&verdict);
                if record.seq.0 >= covered.journal {
                    scorer.take_over(&verdict);
                    taken += 1;
                }
            }
            Kind::Alert => outstanding.replay(&record, &sinks).context("an alert of the journal")?,
            _ => {}
        }
    }
    Ok((outstanding, findings, taken))
}

/// So that `qualm reload` knows whom to signal.
fn write_pid(directory: &Path) -> anyhow::Result<()> {
    let file = directory.join("qualm.pid");
    fs::write(&file, std::process::id().to_string()).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use qualm_model::{level::Level, time::Span};
    use qualm_scorer::verdict::Cause;

    use super::*;
    use crate::finding::tests::verdict;

    pub(super) fn config(directory: &Path, rest: &str) -> Config {
        Config::parse(&format!("[state]\ndirectory = \"{}\"\n{rest}", directory.display())).expect("it is valid")
    }

    pub(super) fn quarantine() -> Verdict {
        let expires = Some(Timestamp(0) + Span::HOUR);
        Verdict { expires, ..verdict(1, Level::Trusted, Level::Quarantined, Cause::Evidence) }
    }

    /// A state directory whose journal holds these decisions.
    fn decided(verdicts: &[Verdict]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(&directory.path().join("journal"), &JournalLimits::default()).expect("a journal");
        for verdict in verdicts {
            let seq = journal.journal.append(Kind::Decision, verdict.time, verdict.decided, verdict).expect("appended");
            journal.journal.wait_durable(seq).expect("written");
        }
        directory
    }

    #[test]
    fn the_first_table_after_a_restart_holds_what_stood_before() {
        let directory = decided(&[quarantine()]);
        let state =
            open(&config(directory.path(), "[enforce]\nmode = \"enforce\""), "hash", Timestamp(1)).expect("it opens");
        let table = state.table(state.last_seq, "hash");
        assert_eq!((table.version, table.entries), (1, quarantine().entry().into_iter().collect()));
    }

    #[test]
    fn what_stood_is_a_shadow_where_the_new_configuration_says_so() {
        for rest in ["[enforce]\nmode = \"shadow\"", "[enforce]\nmode = \"enforce\"\nprotected = [\"cart\"]"] {
            let directory = decided(&[quarantine()]);
            let state = open(&config(directory.path(), rest), "hash", Timestamp(1)).expect("it opens");
            let stands: Vec<_> = state.scorer.entries().iter().map(|entry| (entry.level, entry.enforce)).collect();
            assert_eq!(stands, [(Level::Quarantined, false)], "{rest}");
            let told: Vec<_> = state.restricted.iter().map(|told| (told.cause, told.level, told.enforce)).collect();
            assert_eq!(told, [(Cause::Operator, Level::Quarantined, false)], "{rest}");
        }
    }

    #[test]
    fn what_was_held_back_for_a_protected_identity_is_so_after_a_restart_and_no_news() {
        let held = Verdict { enforce: false, held: Some("protected".to_owned()), ..quarantine() };
        let directory = decided(&[held]);
        let config = config(directory.path(), "[enforce]\nmode = \"enforce\"\nprotected = [\"cart\"]");
        let state = open(&config, "hash", Timestamp(1)).expect("it opens");
        let stands: Vec<_> = state.scorer.entries().iter().map(|entry| (entry.level, entry.enforce)).collect();
        assert_eq!((stands, state.restricted.len()), (vec![(Level::Restricted, true)], 0));
    }

    #[test]
    fn a_snapshot_ahead_of_the_journal_hides_no_later_decision() {
        let directory = decided(&[]);
        let config = config(directory.path(), "");
        let mut state = open(&config, "hash", Timestamp(1)).expect("it opens");
        let covered = Covered { journal: 9, ..Covered::default() };
        state.snapshots.save(state.scorer.changes(covered));
        state.snapshots.finish().expect("under way").expect("written");
        drop(state);
        let state = reopened(&config);
        assert!(state.is_ahead);
        assert_eq!(state.covered.journal, 1);
    }

    /// The writing threads of the state before let go of their files a little later.
    fn reopened(config: &Config) -> State {
        let mut opened = open(config, "hash", Timestamp(1));
        for _ in 0..500 {
            if opened.is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            opened = open(config, "hash", Timestamp(1));
        }
        opened.expect("it opens")
    }
}
