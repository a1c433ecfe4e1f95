//! The loop by itself: no inputs but what a test hands it.

use std::{path::Path, process::Command as Process};

use prometheus::Registry;
use qualm_ingest::{
    kafka::Unanswered,
    kubernetes::{PodNews, Told},
};
use qualm_model::{
    identity::{Tenancy, Tenant},
    level::Level,
    time::Timestamp,
};
use qualm_scorer::{
    journal::{Kind, Seq, read_from},
    table::SharedTable,
    verdict::Cause,
};

use super::{act::PUBLISH_EVERY, *};
use crate::{
    finding::tests::verdict,
    run::{checkpoint::Carried, state},
};

struct Fixture {
    pipeline: Pipeline,
    tables: watch::Receiver<SharedTable>,
    readiness: watch::Receiver<Readiness>,
    stop: watch::Sender<bool>,
    _reports: mpsc::Sender<EnforcementReport>,
}

impl Fixture {
    async fn new(directory: &Path, rest: &str) -> Self {
        let text = format!("[state]\ndirectory = \"{}\"\njournal_mib = 16\n{rest}", directory.display());
        let config = Config::parse(&text).expect("it is valid");
        let state = state::open(&config, "hash", Timestamp::from_seconds(1_800_000_000)).expect("it opens");
        let registry = Registry::new();
        let clock = qualm_model::time::Clock::new(|| Timestamp::from_seconds(1_800_000_000));
        let (table, tables) = watch::channel(SharedTable::default());
        let (readiness, ready) = watch::channel(Readiness::default());
        let (reports, report) = mpsc::channel(8);
        let (stop, stopped) = watch::channel(false);
        let wires = Wires {
            hooks: Wired::default(),
            inputs: Inputs::start(&config, &clock, &registry, "", Unanswered::Fails).expect("no inputs"),
            pods: Pods::start(&config.kubernetes, &clock, &registry).await.expect("nothing to watch"),
            report,
            calls: mpsc::channel(1).1,
            publisher: Publisher::start(table, state.journal.clone()),
            signals: None,
            coverage: watch::channel(Coverage::default()).0,
            readiness,
            metrics: PipelineMetrics::register(&registry).expect("a new registry"),
            registry: &registry,
            stopped,
        };
        let setup = Setup { config, file: None, hash: "hash".to_owned(), clock, notices: None };
        let pipeline = Pipeline::new(setup, state, wires).expect("a pipeline");
        Self { pipeline, tables, readiness: ready, stop, _reports: reports }
    }

    /// Decides that identity `n` has come to stand at `level`.
    fn decide(&mut self, n: usize, level: Level) {
        let mut verdict = Verdict {
            expires: Some(Timestamp::from_seconds(1_900_000_000)),
            ..verdict(1, Level::Trusted, level, Cause::Evidence)
        };
        verdict.identity = format!("s{n}");
        verdict.subject.principal = verdict.identity.clone();
        verdict.decision = format!("{level} of s{n}");
        self.pipeline.state.scorer.take_over(&verdict);
        self.pipeline.verdicts.push(verdict);
        self.pipeline.act(Some(Instant::now()));
    }
}

#[tokio::test]
async fn verdicts_that_deny_nothing_share_a_table_and_none_is_lost() {
    let place = tempfile::tempdir().expect("a directory");
    let mut fixture = Fixture::new(place.path(), "").await;
    (0..50).for_each(|n| fixture.decide(n, Level::Watched));
    assert_eq!(fixture.pipeline.decided.len(), 0, "nothing goes out at once");
    sleep_until((Instant::now() + PUBLISH_EVERY).into()).await;
    fixture.pipeline.publish_if_due();
    fixture.tables.changed().await.expect("a table");
    assert_eq!(fixture.tables.borrow_and_update().entries.len(), 50);
    assert_eq!(fixture.pipeline.decided.len(), 1, "it was one table");
}

#[tokio::test]
async fn what_is_to_be_denied_goes_out_at_once_with_what_was_waiting() {
    let place = tempfile::tempdir().expect("a directory");
    let mut fixture = Fixture::new(place.path(), "[enforce]\nmode = \"enforce\"").await;
    fixture.decide(1, Level::Watched);
    fixture.decide(2, Level::Quarantined);
    fixture.tables.changed().await.expect("a table");
    assert_eq!(fixture.tables.borrow_and_update().entries.len(), 2);
    assert!(fixture.pipeline.unpublished.is_none(), "nothing is left to tell");
}

#[tokio::test]
async fn the_journal_stays_within_its_bound_and_keeps_what_stands() {
    let place = tempfile::tempdir().expect("a directory");
    let mut fixture = Fixture::new(place.path(), "[alerts]\nfile = \"/dev/full\"").await;
    fixture.decide(1, Level::Quarantined);
    let journal = fixture.pipeline.state.journal.clone();
    let long = "x".repeat(500_000);
    for _ in 0..60 {
        let seq = journal.append(Kind::Command, Timestamp(0), Timestamp(0), &long).expect("appended");
        journal.wait_durable(seq).expect("written");
        fixture.pipeline.last_seq = seq.0;
        fixture.pipeline.next_release = Instant::now();
        fixture.pipeline.bound_journal();
    }
    assert!(journal.status().bytes < 18 << 20, "{} bytes", journal.status().bytes);
    let records: Vec<_> = read_from(&place.path().join("journal"), Seq(0))
        .expect("it opens")
        .map(|record| record.expect("sound"))
        .collect();
    assert!(records.iter().all(|record| record.kind != Kind::Decision), "its file is gone");
    let carried: Vec<Carried> =
        records.iter().filter(|of| of.kind == Kind::Checkpoint).map(|of| of.payload().expect("a checkpoint")).collect();
    assert!(carried.iter().any(|of| matches!(of, Carried::Decision { verdict, .. } if verdict.identity == "s1")));
    assert!(carried.iter().any(|of| matches!(of, Carried::Alert { .. })), "no sink has it");
}

#[tokio::test]
async fn while_archives_are_read_the_loop_answers_and_stops() {
    let place = tempfile::tempdir().expect("a directory");
    // Whoever opens it waits for somebody to write.
    let archive = place.path().join("archive.jsonl");
    assert!(Process::new("mkfifo").arg(&archive).status().expect("mkfifo").success());
    let files = format!("[history]\nfiles = [\"{}\"]\n[listen]\n", archive.display());
    let Fixture { pipeline, mut readiness, stop, tables: _tables, _reports } = Fixture::new(place.path(), &files).await;
    // As if there were an input, which says nothing.
    let pipeline = Pipeline { open_inputs: 1, ..pipeline };
    let running = tokio::spawn(pipeline.run());
    let says = |ready: &Readiness| ready.reasons.iter().any(|reason| reason.contains("reading archived logs"));
    readiness.wait_for(says).await.expect("it lives");
    stop.send(true).expect("it listens");
    running.await.expect("no panic").expect("it stops");
}

#[tokio::test]
async fn news_of_pods_is_journalled_once_and_known_again_without_a_snapshot() {
    let place = tempfile::tempdir().expect("a directory");
    let mut fixture = Fixture::new(place.path(), "").await;
    let pod = Tenancy {
        cluster: "".into(),
        pod: "u-1".into(),
        tenant: Tenant::Workload {
            name: "cart.shop".into(),
            instance: "cart-0".into(),
            account: "/ns/shop/sa/cart".into(),
        },
        addresses: vec!["10.1.2.3".into()],
        since: Timestamp::from_seconds(1_799_999_000),
        until: None,
        told: Timestamp::from_seconds(1_800_000_000),
    };
    let before = fixture.pipeline.last_seq;
    for _ in 0..2 {
        fixture.pipeline.hear_of_pods(PodNews { section: 0, what: Told::Changed(vec![pod.clone()]) });
    }
    assert_eq!(fixture.pipeline.last_seq, before + 1, "what is no news is not journalled");
    let config = fixture.pipeline.setup.config.clone();
    drop(fixture);
    // Tasks and the writing thread let go of the journal a little later.
    let mut opened = None;
    for _ in 0..500 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        opened = state::open(&config, "hash", Timestamp::from_seconds(1_800_000_001)).ok();
        if opened.is_some() {
            break;
        }
    }
    assert_eq!(opened.expect("it opens").scorer.pod_addresses().pods, 1);
}
