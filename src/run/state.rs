//! Snapshot and journal at start: what was known, and what was already decided.

use std::{
    collections::BTreeMap,
    fs,
    hash::{BuildHasher, RandomState},
    path::Path,
};

use anyhow::Context;
use qualm_model::{identity::Tenancy, time::Timestamp};
use qualm_scorer::{
    containment::{Moment, Timeline},
    journal::{Journal, JournalLimits, Kind, Seq, SigningKey, read_from},
    notify::{Finding, Outstanding},
    operator::Instruction,
    scorer::Scorer,
    snapshot::{Covered, Snapshots},
    table::TrustTable,
    verdict::Verdict,
};
use serde::Deserialize;

use crate::{
    config::Config,
    finding::Findings,
    run::{
        checkpoint::{Decisions, Reading},
        realised::Realised,
    },
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
    /// Decisions of those who stand above *trusted*.
    pub(crate) decisions: Decisions,
    /// Entries into levels, counted.
    pub(crate) realised: Realised,
    /// How far decisions had come, as it was last told.
    pub(crate) contained: Vec<Timeline>,
    /// The name of whoever runs on this directory, made with it.
    pub(crate) member: String,
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
        let (entries, reachable) = (self.scorer.entries(), self.scorer.reachable());
        TrustTable { version, entries, model_version, reachable, ..TrustTable::default() }
    }
}

/// Opens the state directory.
pub(crate) fn open(config: &Config, hash: &str, wall: Timestamp) -> anyhow::Result<State> {
    let model = config.peers.read()?;
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
    scorer.name_sources(config.source_names());
    scorer.filter_sources(config.filters());
    scorer.scale_counts(config.calls_a_record());
    scorer.wait_for_sources(config.latenesses());
    scorer.take_peers(config.peers.from(model.as_ref()));
    let journal_directory = directory.join("journal");
    let key = SigningKey::open(&config.state.journal_key())?;
    let public = key.public();
    let limits = JournalLimits::of_bytes(config.state.journal_mib << 20);
    let opened = Journal::open_signed(&journal_directory, &limits, key)?;
    if let Some(cut) = &opened.cut {
        tracing::error!(
            signed = %cut.of.seq, head = %opened.head.seq,
            "the journal ends before what was signed last: records were cut off; `qualm journal verify` says so until \
             it is settled"
        );
    }
    if let Some(torn) = &opened.torn {
        tracing::warn!(?torn, "the last record of the journal was torn by the end of the last run and is cut off");
    }
    let is_ahead = covered.journal > opened.head.seq.0 + 1;
    if is_ahead {
        tracing::warn!(covered = covered.journal, head = %opened.head.seq, "the journal has lost records that the snapshot knows of");
        covered.journal = opened.head.seq.0 + 1;
    }
    let Replayed { outstanding, findings, decisions, realised, contained, taken } =
        replay(&journal_directory, config, &mut scorer, &covered)?;
    // What stood under the last configuration stands as far as this one allows it.
    scorer.name_config(hash);
    let mut restricted = Vec::new();
    scorer.restrict(wall, &mut restricted);
    let standing = scorer.entries().len();
    tracing::info!(restored, taken, standing, config = hash, journal_key = %public, "state");
    write_pid(directory)?;
    let member = member(directory, wall)?;
    Ok(State {
        member,
        scorer,
        covered,
        snapshots,
        journal: opened.journal,
        outstanding,
        findings,
        decisions,
        realised,
        contained: contained.into_values().collect(),
        restored,
        restricted,
        last_seq: opened.head.seq.0,
        is_ahead,
    })
}

/// What the journal says.
#[derive(Default)]
struct Replayed {
    outstanding: Outstanding,
    findings: Findings,
    decisions: Decisions,
    realised: Realised,
    /// By decision.
    contained: BTreeMap<String, Timeline>,
    /// Decisions that were taken over.
    taken: usize,
}

/// Takes over the decisions that are younger than the snapshot, and finds the alerts that were not delivered.
fn replay(directory: &Path, config: &Config, scorer: &mut Scorer, covered: &Covered) -> anyhow::Result<Replayed> {
    let sinks = config.alerts.sinks();
    // A sink that was not there when it was decided is owed nothing.
    let mut owed_to = Vec::new();
    let mut replayed = Replayed::default();
    let (mut reading, mut first) = (Reading::default(), None);
    for record in read_from(directory, Seq(0))? {
        let record = record?;
        let first = *first.get_or_insert(record.seq);
        replayed.realised.known_since(record.wall);
        match record.kind {
            Kind::Decision => {
                let verdict: Verdict = record.payload().context("a decision of the journal")?;
                replayed.realised.note(&verdict);
                if let Some(finding) = replayed.note(record.seq, &verdict) {
                    replayed.outstanding.raised(record.seq, finding, &owed_to);
                }
                if record.seq.0 >= covered.journal {
                    scorer.take_over(&verdict);
                    replayed.taken += 1;
                }
            }
            Kind::Alert => replayed.outstanding.replay(&record, &sinks).context("an alert of the journal")?,
            Kind::Command => {
                let command: Told = record.payload().context("a command of the journal")?;
                replayed.note_contained(command.timeline);
                if let Some(then) = command.sinks {
                    owed_to = of(&sinks, &then);
                }
                for verdict in &command.verdicts {
                    if let Some(finding) = replayed.note(record.seq, verdict) {
                        replayed.outstanding.raised(record.seq, finding, &owed_to);
                    }
                }
                // What the snapshot does not know of is told again by nobody, where the pods have ended since.
                if record.seq.0 >= covered.journal {
                    scorer.take_tenancies(command.pods);
                    command.verdicts.iter().for_each(|verdict| scorer.take_over(verdict));
                    if let Some(instruction) = &command.instruction {
                        scorer.take_instruction(instruction, record.seq.0, &command.verdicts);
                    }
                }
            }
            Kind::Checkpoint => {
                let read = reading.take(&record).context("a checkpoint of the journal")?;
                let Some(checkpoint) = read else { continue };
                owed_to = of(&sinks, &checkpoint.sinks);
                // What it repeats was counted, or was before all that is known.
                replayed = Replayed { taken: replayed.taken, realised: replayed.realised, ..Replayed::default() };
                for (seq, verdict) in &checkpoint.decisions {
                    replayed.note(*seq, verdict);
                    // Some of what the snapshot does not know of is only here.
                    if covered.journal < first.0 {
                        scorer.take_over(verdict);
                        replayed.taken += 1;
                    }
                }
                if covered.journal < first.0 {
                    scorer.take_kept_orders(checkpoint.kept);
                }
                checkpoint.contained.into_iter().for_each(|timeline| replayed.note_contained(Some(timeline)));
                replayed.outstanding = Outstanding::carried(checkpoint.owed, &sinks);
            }
            Kind::Gap | Kind::Seal => {}
        }
    }
    Ok(replayed)
}

impl Replayed {
    /// The finding that a decision asks for.
    fn note(&mut self, seq: Seq, verdict: &Verdict) -> Option<Finding> {
        self.decisions.note(seq, verdict);
        self.findings.tell(verdict)
    }

    /// How far a decision has come; one that has ended is not asked about again.
    fn note_contained(&mut self, timeline: Option<Timeline>) {
        let Some(timeline) = timeline else { return };
        if timeline.moment == Moment::Ended {
            self.contained.remove(&timeline.decision);
        } else {
            self.contained.insert(timeline.decision.clone(), timeline);
        }
    }
}

/// The sinks that are among those of then.
fn of<'a>(sinks: &[&'a str], then: &[String]) -> Vec<&'a str> {
    sinks.iter().copied().filter(|sink| then.iter().any(|name| name == sink)).collect()
}

/// What a command says of sinks, of pods, and what an operator has had done.
#[derive(Deserialize)]
struct Told {
    sinks: Option<Vec<String>>,
    #[serde(default)]
    pods: Vec<Tenancy>,
    instruction: Option<Instruction>,
    #[serde(default)]
    verdicts: Vec<Verdict>,
    timeline: Option<Timeline>,
}

/// So that `qualm reload` knows whom to signal.
fn write_pid(directory: &Path) -> anyhow::Result<()> {
    let file = directory.join("qualm.pid");
    fs::write(&file, std::process::id().to_string()).with_context(|| file.display().to_string())
}

/// The name in `directory/member`; a new one where there is none, or none that Kafka takes.
fn member(directory: &Path, wall: Timestamp) -> anyhow::Result<String> {
    let file = directory.join("member");
    let is_name = |name: &str| (8..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(name) = fs::read_to_string(&file).ok().filter(|name| is_name(name)) {
        return Ok(name);
    }
    // Random keys of the process, and the moment: no other directory's.
    let name = format!("{:016x}", RandomState::new().hash_one((wall.0, std::process::id(), directory)));
    fs::write(&file, &name).with_context(|| file.display().to_string())?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use qualm_model::{
        level::Level,
        time::{Span, Timestamp},
    };
    use qualm_scorer::{
        notify::{Activity, AlertRecord, Delivery},
        verdict::Cause,
    };

    use super::*;
    use crate::{
        finding::{Setting, tests::verdict},
        run::checkpoint::{Carried, records},
    };

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
        let mut table = state.table(state.last_seq, "hash");
        // What the subject may still do is looked up anew.
        table.entries.iter_mut().for_each(|entry| entry.known = None);
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
        assert_eq!((stands, state.restricted.len()), (vec![(Level::Quarantined, false)], 0));
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

    /// The ids and activities that are owed after these records, with a file as the only sink.
    fn owed(records: &[(Kind, serde_json::Value)]) -> Vec<(Seq, Activity)> {
        let directory = tempfile::tempdir().expect("a directory");
        let limits = JournalLimits::default();
        let journal = Journal::open(&directory.path().join("journal"), &limits).expect("a journal").journal;
        for (kind, record) in records {
            journal.append(*kind, Timestamp(0), Timestamp(0), record).expect("appended");
        }
        drop(journal);
        let config = config(directory.path(), "[alerts]\nfile = \"alerts.jsonl\"");
        let owed = open(&config, "hash", Timestamp(1)).expect("it opens").outstanding.undelivered();
        owed.into_iter().map(|(seq, finding)| (seq, finding.activity)).collect()
    }

    fn started(sinks: &[&str]) -> (Kind, serde_json::Value) {
        (Kind::Command, serde_json::json!({ "command": "start", "config": "hash", "sinks": sinks }))
    }

    fn decision(verdict: &Verdict) -> (Kind, serde_json::Value) {
        (Kind::Decision, serde_json::to_value(verdict).expect("plain data"))
    }

    fn delivered(verdict: &Verdict, seq: u64) -> (Kind, serde_json::Value) {
        let uid = Findings::new(Setting::Live).tell(verdict).expect("it is news").uid;
        let (activity, sink) = (Activity::Create, "file".to_owned());
        let delivery = AlertRecord::Delivered(Delivery { uid, activity, seq: Seq(seq), sink });
        (Kind::Alert, serde_json::to_value(delivery).expect("plain data"))
    }

    #[test]
    fn an_alert_is_owed_from_the_moment_at_which_its_decision_is_in_the_journal() {
        let quarantine = quarantine();
        let (start, decided) = (started(&["file"]), decision(&quarantine));
        // Killed right after the decision; and after the alert had arrived and that was journalled.
        assert_eq!(owed(&[start.clone(), decided.clone()]), [(Seq(2), Activity::Create)]);
        assert_eq!(owed(&[start.clone(), decided.clone(), delivered(&quarantine, 2)]), []);
        let ended = Verdict { time: Timestamp(9), ..verdict(5, Level::Quarantined, Level::Trusted, Cause::Lease) };
        let records = [start, decided, delivered(&quarantine, 2), decision(&ended)];
        assert_eq!(owed(&records), [(Seq(4), Activity::Close)]);
    }

    fn checkpoint(
        of: &[(u64, &Verdict)],
        sinks: &[&str],
        owed: Vec<qualm_scorer::notify::Owed>,
    ) -> Vec<(Kind, serde_json::Value)> {
        let mut decisions = Decisions::default();
        of.iter().for_each(|(seq, verdict)| decisions.note(Seq(*seq), verdict));
        let value = |carried: Carried| (Kind::Checkpoint, serde_json::to_value(carried).expect("plain data"));
        records("hash", sinks, &decisions, (owed, Vec::new(), Vec::new())).into_iter().map(value).collect()
    }

    #[test]
    fn what_stands_and_what_is_owed_follows_from_a_checkpoint_alone() {
        let quarantine = quarantine();
        let mut outstanding = Outstanding::default();
        let finding = Findings::new(Setting::Live).tell(&quarantine).expect("it is news");
        outstanding.raised(Seq(70), finding, &["file"]);
        let carried = checkpoint(&[(70, &quarantine)], &["file"], outstanding.owed().cloned().collect());
        assert_eq!(owed(&carried), [(Seq(70), Activity::Create)]);
        // What it does not say is owed is not: it was delivered in records that are gone.
        let (start, decided) = (started(&["file"]), decision(&quarantine));
        let delivered = checkpoint(&[(70, &quarantine)], &["file"], Vec::new());
        assert_eq!(owed(&[vec![start.clone(), decided.clone()], delivered.clone()].concat()), []);
        // One without its end is none.
        let torn = &delivered[..delivered.len() - 1];
        assert_eq!(owed(&[&[start, decided], torn].concat()), [(Seq(2), Activity::Create)]);
        // The episode goes on under its id.
        let ended = Verdict { time: Timestamp(9), ..verdict(5, Level::Quarantined, Level::Trusted, Cause::Lease) };
        assert_eq!(owed(&[&delivered[..], &[decision(&ended)]].concat()), [(Seq(4), Activity::Close)]);
    }

    #[test]
    fn what_was_decided_before_a_sink_was_configured_is_not_owed_to_it() {
        let quarantine = quarantine();
        assert_eq!(owed(&[started(&[]), decision(&quarantine)]), []);
        assert_eq!(owed(&[started(&["kafka"]), decision(&quarantine)]), []);
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

    #[test]
    fn a_directory_keeps_its_members_name_and_no_two_have_the_same() {
        let [one, other] = [(), ()].map(|()| tempfile::tempdir().expect("a directory"));
        let name = |directory: &Path| member(directory, Timestamp::from_seconds(1)).expect("it is writable");
        let first = name(one.path());
        assert_eq!(name(one.path()), first);
        assert_ne!(name(other.path()), first);
        fs::write(one.path().join("member"), "torn \n").expect("writable");
        assert!(!name(one.path()).contains('\n'), "what is no name is made anew");
    }
}
