//! The same events give the same verdicts for any batch size and any restart point.

mod mesh;
mod reopened;

use mesh::{Call, batch, batch_of, calls};
use qualm_model::{
    event::{Event, Positions},
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::{Budget, ScorerConfig},
    scorer::{Observed, Scorer},
    snapshot::{Covered, Loaded, SnapshotError, Snapshots, glance},
    verdict::Verdict,
};
use reopened::reopened;

#[derive(Default, PartialEq, Debug)]
struct Outcomes {
    bits: Vec<u64>,
    verdicts: Vec<Verdict>,
}

fn feed(scorer: &mut Scorer, calls: &[Call], first: usize, size: usize, outcomes: &mut Outcomes) {
    for (n, chunk) in calls.chunks(size).enumerate() {
        let batch = batch(chunk, first + n * size);
        scorer.open(&batch);
        batch.events().for_each(|event: Event<'_>| {
            scorer.tick(event.report(), &mut outcomes.verdicts);
            let observed = scorer.observe(event, event.report(), &mut outcomes.verdicts);
            if let Observed::Scored { bits, .. } = observed {
                outcomes.bits.push(bits.to_bits());
            }
        });
    }
}

fn whole(size: usize) -> Outcomes {
    let mut outcomes = Outcomes::default();
    feed(&mut Scorer::new(ScorerConfig::default()), &calls(), 0, size, &mut outcomes);
    outcomes
}

#[test]
fn the_batch_size_changes_nothing() {
    let expected = whole(1000);
    assert!(!expected.verdicts.is_empty(), "the odd service is noticed");
    let odd = expected.verdicts.iter().find(|verdict| verdict.identity.ends_with("/s3")).expect("it is the odd one");
    assert!(!odd.reasons.is_empty());
    assert_eq!(whole(1), expected);
    assert_eq!(whole(7777), expected);
}

#[test]
fn a_restart_at_any_point_changes_nothing() {
    let expected = whole(1000);
    let calls = calls();
    for restart in [1, 333, 20_011, 41_111, 57_003] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut outcomes = Outcomes::default();
        let (mut snapshots, loaded) = Snapshots::open(directory.path(), ScorerConfig::default()).expect("a new one");
        assert!(loaded.is_none());
        let mut scorer = Scorer::new(ScorerConfig::default());
        // An earlier snapshot first: the second holds only what has changed since.
        let early = restart / 2;
        feed(&mut scorer, &calls[..early], 0, 500, &mut outcomes);
        snapshots.save(scorer.changes(Covered::default()));
        snapshots.finish().expect("it was being written").expect("it can be written");
        feed(&mut scorer, &calls[early..restart], early, 500, &mut outcomes);
        let positions = [((0, 0), restart as i64)].into();
        let inputs = vec!["topic a".to_owned()];
        let covered = Covered { positions, journal: 7, inputs, ..Covered::default() };
        snapshots.save(scorer.changes(covered.clone()));
        snapshots.finish().expect("it was being written").expect("it can be written");
        drop((snapshots, scorer));
        let (_snapshots, loaded) = reopened(directory.path(), &ScorerConfig::default());
        let mut loaded = loaded.expect("a snapshot");
        assert_eq!(loaded.covered, covered);
        feed(&mut loaded.scorer, &calls[restart..], restart, 500, &mut outcomes);
        assert_eq!(outcomes.verdicts, expected.verdicts, "restart at {restart}");
        assert!(outcomes.bits == expected.bits, "restart at {restart}: scores differ");
    }
}

#[test]
fn what_changes_while_a_snapshot_is_collected_is_in_it_as_it_was() {
    let expected = whole(1000);
    let calls = calls();
    for begun in [3_000, 20_011, 41_111] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut snapshots, _) = Snapshots::open(directory.path(), ScorerConfig::default()).expect("a new one");
        let mut outcomes = Outcomes::default();
        let mut scorer = Scorer::new(ScorerConfig::default());
        feed(&mut scorer, &calls[..begun], 0, 500, &mut outcomes);
        scorer.begin_snapshot(Covered::default());
        // All of them go on calling, and none of that is known after the restart.
        let mut read = begun;
        let changes = loop {
            feed(&mut scorer, &calls[read..read + 20], read, 20, &mut Outcomes::default());
            read += 20;
            if let Some(changes) = scorer.collect(20) {
                break changes;
            }
        };
        assert!(read > begun + 60, "it takes several turns");
        snapshots.save(changes);
        snapshots.finish().expect("it was being written").expect("it can be written");
        drop((snapshots, scorer));
        let (_snapshots, loaded) = reopened(directory.path(), &ScorerConfig::default());
        let mut loaded = loaded.expect("a snapshot");
        feed(&mut loaded.scorer, &calls[begun..], begun, 500, &mut outcomes);
        assert_eq!(outcomes.verdicts, expected.verdicts, "begun at {begun}");
        assert!(outcomes.bits == expected.bits, "begun at {begun}: scores differ");
    }
}

/// Two partitions, of which the second is read in turns and far behind: whether it is waited for depends on wall time.
fn two_partitions(calls: &[Call]) -> Vec<(Vec<Call>, usize, i32, Timestamp)> {
    let mut turns = Vec::new();
    for (turn, chunk) in calls.chunks(1000).enumerate() {
        let (even, odd): (Vec<_>, Vec<_>) = chunk.iter().cloned().partition(|call| call.address.ends_with('1'));
        let latest = chunk[chunk.len() - 1].time;
        // Now and then a batch is taken long after its time, as after a pause of the broker.
        let wall = if turn % 5 == 3 { latest + Span::HOUR } else { latest };
        turns.push((even, turn * 1000, 0, wall));
        turns.push((odd, turn * 1000, 1, wall + Span::SECOND));
    }
    turns
}

fn take(scorer: &mut Scorer, turns: &[(Vec<Call>, usize, i32, Timestamp)], outcomes: &mut Outcomes) {
    for (calls, first, partition, wall) in turns {
        let batch = batch_of(*partition, calls, *first);
        scorer.open(&batch);
        scorer.note_order(&batch, *wall);
        batch.events().for_each(|event: Event<'_>| {
            if let Observed::Scored { bits, .. } = scorer.observe(event, *wall, &mut outcomes.verdicts) {
                outcomes.bits.push(bits.to_bits());
            }
        });
    }
}

#[test]
fn the_order_of_reading_that_is_saved_brings_the_same_verdicts_again() {
    let turns = two_partitions(&calls()[..30_000]);
    let (before, after) = turns.split_at(turns.len() / 2);
    let directory = tempfile::tempdir().expect("a directory");
    let (mut snapshots, _) = Snapshots::open(directory.path(), ScorerConfig::default()).expect("a new one");
    let mut scorer = Scorer::new(ScorerConfig::default());
    take(&mut scorer, before, &mut Outcomes::default());
    snapshots.save(scorer.changes(Covered::default()));
    snapshots.finish().expect("it was being written").expect("it can be written");
    let copy = tempfile::tempdir().expect("a directory");
    std::fs::copy(directory.path().join("snapshot.redb"), copy.path().join("snapshot.redb")).expect("a copy");
    let mut expected = Outcomes::default();
    take(&mut scorer, after, &mut expected);
    snapshots.save(scorer.changes(Covered::default()));
    snapshots.finish().expect("it was being written").expect("it can be written");
    drop((snapshots, scorer));

    let (kept, loaded) = reopened(directory.path(), &ScorerConfig::default());
    drop((kept, loaded));
    let order = until_free(|| Snapshots::order(directory.path()));
    assert_eq!(order.len(), 2, "one list a snapshot");
    let (_copied, loaded) = reopened(copy.path(), &ScorerConfig::default());
    let mut again = loaded.expect("a snapshot").scorer;
    let mut outcomes = Outcomes::default();
    for run in &order[1] {
        let of_run = |(_, first, partition, _): &&(Vec<Call>, usize, i32, Timestamp)| {
            *partition == run.partition && (run.first..=run.last).contains(&(*first as i64))
        };
        let (calls, first, partition, _) = after.iter().find(of_run).expect("events that were read");
        take(&mut again, &[(calls.clone(), *first, *partition, run.wall)], &mut outcomes);
    }
    assert_eq!(outcomes.verdicts, expected.verdicts);
    assert!(outcomes.bits == expected.bits, "scores differ");
}

fn until_free<T>(mut open: impl FnMut() -> Result<T, SnapshotError>) -> T {
    for _ in 0..2000 {
        match open() {
            Ok(opened) => return opened,
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    }
    panic!("the file is still held");
}

#[test]
fn a_snapshot_is_looked_at_from_outside_while_it_is_open_and_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let look = || glance(directory.path(), &Budget::default(), |name| name.ends_with("/s3"));
    assert!(look().expect("nothing is there").is_none());
    let (mut snapshots, _) = Snapshots::open(directory.path(), ScorerConfig::default()).expect("a new one");
    assert!(look().expect("it is empty").is_none());
    let (calls, mut scorer) = (calls(), Scorer::new(ScorerConfig::default()));
    feed(&mut scorer, &calls[..30_000], 0, 500, &mut Outcomes::default());
    snapshots.save(scorer.changes(Covered::default()));
    snapshots.finish().expect("it was being written").expect("it can be written");
    let file = directory.path().join("snapshot.redb");
    let before = std::fs::read(&file).expect("it is there");
    let seen = look().expect("it can be read").expect("a snapshot");
    assert!(before == std::fs::read(&file).expect("it is there"), "to look is not to change");
    let mut names: Vec<_> = calls[..30_000].iter().map(|call| call.source.clone()).collect();
    names.sort();
    names.dedup();
    let mut found = seen.names;
    found.sort();
    assert_eq!((found, &seen.armed), (names, &scorer.armed()));
    let mut peers: Vec<_> =
        calls[..30_000].iter().filter(|call| call.source.ends_with("/s3")).map(|call| &call.destination).collect();
    peers.sort();
    peers.dedup();
    assert_eq!(seen.known.len(), 1);
    assert_eq!((seen.known[0].peers, seen.known[0].instances, seen.known[0].level), (peers.len(), 2, Level::Trusted));

    // Whoever looks while it is being written sees one of the states that were committed.
    for (n, chunk) in calls[30_000..40_000].chunks(500).enumerate() {
        feed(&mut scorer, chunk, 30_000 + n * 500, 500, &mut Outcomes::default());
        snapshots.save(scorer.changes(Covered::default()));
        let meanwhile = look().expect("it can be read").expect("a snapshot");
        assert!(meanwhile.names.len() == seen.known.len() * 20 && meanwhile.until >= seen.until);
        snapshots.finish().expect("it was being written").expect("it can be written");
    }
}

#[test]
fn a_damaged_snapshot_is_refused_with_the_way_on() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(
        directory.path().join("snapshot.redb"),
        b"this is no snapshot, but it is long enough to look like one",
    )
    .expect("writable");
    let error = Snapshots::open(directory.path(), ScorerConfig::default()).expect_err("damaged").to_string();
    assert!(error.contains("snapshot.redb") && error.contains("move it away"), "{error}");
}

/// What a snapshot holds, told by what comes of it.
fn told(file: &[u8], calls: &[Call]) -> Result<String, SnapshotError> {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("snapshot.redb"), file).expect("writable");
    let looked = glance(directory.path(), &Budget::default(), |_| true);
    let (_snapshots, loaded) = Snapshots::open(directory.path(), ScorerConfig::default())?;
    let mut loaded = loaded.expect("there was one");
    let looked = looked.expect("what opens can be looked at").expect("there was one");
    let mut names = looked.names;
    names.sort();
    let mut outcomes = Outcomes::default();
    feed(&mut loaded.scorer, calls, 20_000, 500, &mut outcomes);
    Ok(format!("{:?} {:?} {names:?} {:?}", loaded.covered, loaded.scorer.tally(), outcomes.verdicts))
}

#[test]
fn bytes_that_changed_anywhere_in_the_file_are_found_or_change_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut snapshots, _) = Snapshots::open(directory.path(), ScorerConfig::default()).expect("a new one");
    let (calls, mut scorer) = (calls(), Scorer::new(ScorerConfig::default()));
    for (n, chunk) in calls[..20_000].chunks(5_000).enumerate() {
        feed(&mut scorer, chunk, n * 5_000, 500, &mut Outcomes::default());
        snapshots.save(scorer.changes(Covered { journal: n as u64, ..Covered::default() }));
        snapshots.finish().expect("it was being written").expect("it can be written");
    }
    // As a kill leaves it, and closed in order.
    let path = directory.path().join("snapshot.redb");
    let killed = std::fs::read(&path).expect("it is there");
    drop(snapshots);
    until_free(|| Snapshots::open(directory.path(), ScorerConfig::default()).map(drop));
    let closed = std::fs::read(&path).expect("it is there");
    let calls = &calls[20_000..20_500];
    for file in [killed, closed] {
        damage_everywhere(&file, calls);
    }
}

fn damage_everywhere(file: &[u8], calls: &[Call]) {
    let saved = told(file, calls).expect("it is sound");
    let header = (0..320).step_by(3);
    let pages = (1..150).map(|n| n * (file.len() / 150) + n * 37 % 4096).filter(|at| *at < file.len());
    let mut found = 0;
    for at in header.chain(pages) {
        for (width, mask) in [(1, 1), (1, 0x80), (64, 0xff)] {
            let mut damaged = file.to_vec();
            damaged[at..].iter_mut().take(width).for_each(|byte| *byte ^= mask);
            match told(&damaged, calls) {
                // The bit that chooses between the last two commits has no checksum: it may lead to the one before.
                Ok(_) if at == 9 => {}
                Ok(state) => assert!(state == saved, "another state after {width} bytes at {at} of {}", file.len()),
                Err(SnapshotError::Damaged { .. }) => found += 1,
                Err(error) => panic!("{width} bytes at {at}: {error}"),
            }
        }
    }
    assert!(found > 30, "{found} were found");
}

#[test]
fn silence_moves_no_clock_and_a_lease_ends_in_wall_time() {
    let mut outcomes = Outcomes::default();
    let mut scorer = Scorer::new(ScorerConfig::default());
    feed(&mut scorer, &calls(), 0, 1000, &mut outcomes);
    let standing = scorer.entries();
    assert!(!standing.is_empty(), "the odd service stands above trusted");
    let mut later = Vec::new();
    let end = standing[0].expires;
    scorer.tick(end - Span::SECOND, &mut later);
    assert!(later.is_empty(), "before its end a lease stands");
    scorer.tick(end, &mut later);
    assert!(!later.is_empty(), "at its end it is renewed or over, although no telemetry came");
}

/// What is loaded of a scorer that took `calls`, with the positions and names given, under another configuration.
fn saved_and_loaded(calls: &[Call], covered: Covered, config: &ScorerConfig) -> (Scorer, Loaded) {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut snapshots, _) = Snapshots::open(directory.path(), ScorerConfig::default()).expect("a new one");
    let mut scorer = Scorer::new(ScorerConfig::default());
    feed(&mut scorer, calls, 0, 500, &mut Outcomes::default());
    snapshots.save(scorer.changes(covered));
    snapshots.finish().expect("it was being written").expect("it can be written");
    drop(snapshots);
    let (_snapshots, loaded) = until_free(|| Snapshots::open(directory.path(), config.clone()));
    (scorer, loaded.expect("a snapshot"))
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn positions_follow_the_names_of_their_inputs() {
    let positions: Positions = [((0, 0), 10), ((1, 0), 20), ((1, 3), 23), ((2, 0), 30)].into();
    let covered =
        Covered { positions: positions.clone(), journal: 1, inputs: names(&["a", "b", "c"]), ..Covered::default() };
    let (_, mut loaded) = saved_and_loaded(&calls()[..100], covered, &ScorerConfig::default());
    assert_eq!(loaded.renumber(&names(&["a", "b", "c"])), Vec::<String>::new());
    assert_eq!(loaded.covered.positions, positions);
    assert_eq!(loaded.renumber(&names(&["new", "c", "b"])), ["a"], "one is gone");
    assert_eq!(loaded.covered.positions, [((1, 0), 30), ((2, 0), 20), ((2, 3), 23)].into());
}

#[test]
fn a_snapshot_without_names_keeps_its_positions() {
    let covered = Covered { positions: [((0, 0), 10)].into(), ..Covered::default() };
    let (_, mut loaded) = saved_and_loaded(&calls()[..100], covered.clone(), &ScorerConfig::default());
    assert_eq!(loaded.renumber(&names(&["a"])), Vec::<String>::new());
    assert_eq!(loaded.covered.positions, covered.positions);
}

#[test]
fn a_new_budget_is_in_force_from_the_start() {
    let budget = Budget { watched_per_day: 5000.0, ..Budget::default() };
    let config = ScorerConfig { budget, ..ScorerConfig::default() };
    let (mut scorer, loaded) = saved_and_loaded(&calls(), Covered::default(), &config);
    let before = scorer.realised_per_day(Level::Watched);
    scorer.reconfigure(config, calls().last().expect("many").time, &mut Vec::new());
    let expected = scorer.realised_per_day(Level::Watched);
    assert!(expected > before, "another budget, another threshold: {before} {expected}");
    assert_eq!(loaded.scorer.realised_per_day(Level::Watched), expected);
}
