//! A snapshot of a release before is read, and means what it meant: `golden/snapshot-v1.redb.zst` was written before
//! workloads that share a principal were told apart, `golden/snapshot-v2.redb.zst` before it was kept which records carry
//! evidence, `golden/snapshot-v3.redb.zst` before windows were held against those of peers, `golden/snapshot-v4.redb.zst`
//! before it was kept whom a source met and how long it rested, each after 58,000 calls of the made-up mesh; the second by `qualm run` over them as lines of CSV, of later days.

mod mesh;

use std::collections::BTreeSet;

use mesh::{Call, batch, calls};
use qualm_model::level::Level;
use qualm_scorer::{
    config::ScorerConfig,
    scorer::{Observed, Scorer},
    snapshot::Snapshots,
    verdict::Verdict,
};

const GOLDEN: &[u8] = include_bytes!("golden/snapshot-v1.redb.zst");
const READ: usize = 58_000;
const GOLDEN_2: &[u8] = include_bytes!("golden/snapshot-v2.redb.zst");
const GOLDEN_3: &[u8] = include_bytes!("golden/snapshot-v3.redb.zst");
const GOLDEN_4: &[u8] = include_bytes!("golden/snapshot-v4.redb.zst");
/// When the calls of the second begin, instead of [`mesh::START`].
const START_2: i64 = 1_794_654_400_000_000_000;

/// Who stood where when it was written.
const STOOD: [(&str, Level); 4] =
    [("s1", Level::Watched), ("s19", Level::Throttled), ("s3", Level::Throttled), ("s7", Level::Throttled)];

/// How many were scored, and what was decided.
fn feed(scorer: &mut Scorer, calls: &[Call], first: usize) -> (usize, Vec<Verdict>) {
    let (mut scored, mut verdicts) = (0, Vec::new());
    for (n, chunk) in calls.chunks(500).enumerate() {
        let batch = batch(chunk, first + n * 500);
        scorer.open(&batch);
        for event in batch.events() {
            let observed = scorer.observe(event, event.report(), &mut verdicts);
            scored += usize::from(matches!(observed, Observed::Scored { .. }));
        }
    }
    (scored, verdicts)
}

#[test]
fn a_snapshot_of_the_release_before_is_read_and_goes_on_as_if_nothing_had_changed() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = zstd::decode_all(GOLDEN).expect("it is compressed");
    std::fs::write(directory.path().join("snapshot.redb"), file).expect("writable");
    let (_snapshots, loaded) = Snapshots::open(directory.path(), ScorerConfig::default()).expect("it can be read");
    let mut loaded = loaded.expect("a snapshot");
    assert_eq!((loaded.covered.journal, loaded.covered.positions.get(&(0, 0))), (7, Some(&(READ as i64))));
    let stands: Vec<(String, Level)> =
        loaded.scorer.entries().into_iter().map(|entry| (entry.subject.identity(), entry.level)).collect();
    assert_eq!(stands, STOOD.map(|(who, level)| (format!("spiffe://mesh.test/ns/shop/sa/{who}"), level)));
    // A release may judge otherwise, so that bits differ; whom it finds in what comes next does not.
    let calls = calls();
    let mut whole = Scorer::new(ScorerConfig::default());
    feed(&mut whole, &calls[..READ], 0);
    let (scored, expected) = feed(&mut whole, &calls[READ..], READ);
    let (scored_on, verdicts) = feed(&mut loaded.scorer, &calls[READ..], READ);
    assert_eq!(scored_on, scored);
    let limited = |verdicts: &[Verdict]| -> BTreeSet<String> {
        let entered = verdicts.iter().filter(|verdict| verdict.level > verdict.previous.max(Level::Watched));
        entered.map(|verdict| verdict.identity.clone()).collect()
    };
    assert_eq!(limited(&verdicts), limited(&expected));
    let close = loaded.scorer.tally();
    assert_eq!((close.identities, close.edges), (whole.tally().identities, whole.tally().edges));
}

#[test]
fn a_snapshot_of_version_2_is_read_and_what_it_does_not_know_is_none() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = zstd::decode_all(GOLDEN_2).expect("it is compressed");
    std::fs::write(directory.path().join("snapshot.redb"), file).expect("writable");
    let (_snapshots, loaded) = Snapshots::open(directory.path(), ScorerConfig::default()).expect("it can be read");
    let mut loaded = loaded.expect("a snapshot");
    assert_eq!(loaded.covered.positions.get(&(0, 0)), Some(&(READ as i64)));
    let mut calls = calls();
    calls.iter_mut().for_each(|call| call.time.0 += START_2 - mesh::START);
    let mut whole = Scorer::new(ScorerConfig::default());
    feed(&mut whole, &calls[..READ], 0);
    assert_eq!(loaded.scorer.tally().identities, whole.tally().identities);
    let s3 = "spiffe://mesh.test/ns/shop/sa/s3";
    let rehearsed = loaded.scorer.rehearse(s3, None, Level::Quarantined).expect("it is known");
    assert_eq!((rehearsed.calls, rehearsed.destinations.len()), (0.0, 0), "nobody counted the hours");
    let (scored, _) = feed(&mut whole, &calls[READ..], READ);
    let (scored_on, verdicts) = feed(&mut loaded.scorer, &calls[READ..], READ);
    assert_eq!(scored_on, scored);
    let told = verdicts.iter().rfind(|verdict| verdict.identity == s3 && verdict.level > verdict.previous);
    assert!(told.is_none_or(|verdict| !verdict.carried_by.is_empty()), "from here on it is kept: {told:?}");
}

#[test]
fn a_snapshot_of_version_3_is_read_and_peers_are_fitted_a_day_later() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = zstd::decode_all(GOLDEN_3).expect("it is compressed");
    std::fs::write(directory.path().join("snapshot.redb"), file).expect("writable");
    let (_snapshots, loaded) = Snapshots::open(directory.path(), ScorerConfig::default()).expect("it can be read");
    let mut loaded = loaded.expect("a snapshot");
    let calls = calls();
    let mut whole = Scorer::new(ScorerConfig::default());
    feed(&mut whole, &calls[..READ], 0);
    assert_eq!(loaded.scorer.tally().identities, whole.tally().identities);
    let (scored, expected) = feed(&mut whole, &calls[READ..], READ);
    let (scored_on, verdicts) = feed(&mut loaded.scorer, &calls[READ..], READ);
    assert_eq!(scored_on, scored);
    let entered = |verdicts: &[Verdict]| -> BTreeSet<String> {
        verdicts.iter().filter(|verdict| verdict.level > Level::Watched).map(|of| of.identity.clone()).collect()
    };
    assert_eq!(entered(&verdicts), entered(&expected));
    assert_eq!(loaded.scorer.applied_peers(), None, "nobody has windows yet");
}

#[test]
fn a_snapshot_of_version_4_is_read_and_goes_on_as_if_nothing_had_changed() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = zstd::decode_all(GOLDEN_4).expect("it is compressed");
    std::fs::write(directory.path().join("snapshot.redb"), file).expect("writable");
    let (_snapshots, loaded) = Snapshots::open(directory.path(), ScorerConfig::default()).expect("it can be read");
    let mut loaded = loaded.expect("a snapshot");
    assert_eq!(loaded.covered.positions.get(&(0, 0)), Some(&(READ as i64)));
    let calls = calls();
    let mut whole = Scorer::new(ScorerConfig::default());
    feed(&mut whole, &calls[..READ], 0);
    assert_eq!(loaded.scorer.tally().identities, whole.tally().identities);
    let (scored, expected) = feed(&mut whole, &calls[READ..], READ);
    let (scored_on, verdicts) = feed(&mut loaded.scorer, &calls[READ..], READ);
    assert_eq!(scored_on, scored);
    let entered = |verdicts: &[Verdict]| -> BTreeSet<String> {
        verdicts.iter().filter(|verdict| verdict.level > Level::Watched).map(|of| of.identity.clone()).collect()
    };
    assert_eq!(entered(&verdicts), entered(&expected));
}
