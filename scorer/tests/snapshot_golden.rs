//! A snapshot of the release before is read, and means what it meant: `golden/snapshot-v1.redb.zst` was written before
//! workloads that share a principal were told apart, after 58,000 calls of the made-up mesh.

mod mesh;

use mesh::{Call, batch, calls};
use qualm_model::event::Event;
use qualm_scorer::{
    config::ScorerConfig,
    scorer::{Observed, Scorer},
    snapshot::Snapshots,
    verdict::Verdict,
};

const GOLDEN: &[u8] = include_bytes!("golden/snapshot-v1.redb.zst");
const READ: usize = 58_000;

fn feed(scorer: &mut Scorer, calls: &[Call], first: usize) -> (Vec<u64>, Vec<Verdict>) {
    let (mut scores, mut verdicts) = (Vec::new(), Vec::new());
    for (n, chunk) in calls.chunks(500).enumerate() {
        let batch = batch(chunk, first + n * 500);
        scorer.open(&batch);
        batch.events().for_each(|event: Event<'_>| {
            if let Observed::Scored { bits, .. } = scorer.observe(event, event.report(), &mut verdicts) {
                scores.push(bits.to_bits());
            }
        });
    }
    (scores, verdicts)
}

#[test]
fn a_snapshot_of_the_release_before_is_read_and_goes_on_as_if_nothing_had_changed() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = zstd::decode_all(GOLDEN).expect("it is compressed");
    std::fs::write(directory.path().join("snapshot.redb"), file).expect("writable");
    let (_snapshots, loaded) = Snapshots::open(directory.path(), ScorerConfig::default()).expect("it can be read");
    let mut loaded = loaded.expect("a snapshot");
    assert_eq!((loaded.covered.journal, loaded.covered.positions.get(&(0, 0))), (7, Some(&(READ as i64))));
    let calls = calls();
    let mut whole = Scorer::new(ScorerConfig::default());
    feed(&mut whole, &calls[..READ], 0);
    assert!(!whole.entries().is_empty(), "somebody stands");
    assert_eq!(loaded.scorer.entries(), whole.entries());
    let expected = feed(&mut whole, &calls[READ..], READ);
    let (scores, verdicts) = feed(&mut loaded.scorer, &calls[READ..], READ);
    assert_eq!(verdicts, expected.1);
    assert!(scores == expected.0, "the same scores, to the last bit");
}
