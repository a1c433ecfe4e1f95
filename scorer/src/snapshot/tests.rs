//! A disk that refuses for a moment.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use qualm_model::event::Positions;
use redb::{Database, StorageBackend, backends::FileBackend};

use self::mesh::{Call, batch, calls};
use super::{Covered, Loaded, Snapshots};
use crate::{config::ScorerConfig, scorer::Scorer, verdict::Verdict};

#[path = "../../tests/mesh/mod.rs"]
mod mesh;

/// A file on a disk that is full for as long as it is told to be.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    is_full: Arc<AtomicBool>,
}

type Outcome<T> = io::Result<T>;

impl StorageBackend for Disk {
    fn len(&self) -> Outcome<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Outcome<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Outcome<()> {
        self.refuse()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Outcome<()> {
        self.refuse()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Outcome<()> {
        self.refuse()?;
        self.file.write(offset, data)
    }
}

impl Disk {
    fn refuse(&self) -> Outcome<()> {
        match self.is_full.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

fn open(path: &Path, is_full: &Arc<AtomicBool>) -> (Snapshots, Option<Loaded>) {
    let (file, is_full) = (path.to_owned(), is_full.clone());
    let opener = move || {
        let file = std::fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&file);
        let file = FileBackend::new(file.map_err(redb::StorageError::Io)?)?;
        Database::builder().create_with_backend(Disk { file, is_full: is_full.clone() })
    };
    Snapshots::over(PathBuf::from(path), ScorerConfig::default(), Box::new(opener)).expect("it opens")
}

fn feed(scorer: &mut Scorer, calls: &[Call], first: usize, verdicts: &mut Vec<Verdict>) {
    for (n, chunk) in calls.chunks(500).enumerate() {
        let batch = batch(chunk, first + n * 500);
        scorer.open(&batch);
        for event in batch.events() {
            scorer.note_order(&batch, event.report());
            scorer.observe(event, event.report(), verdicts);
        }
    }
}

#[test]
fn after_a_snapshot_that_a_full_disk_refused_the_next_one_holds_everything() {
    let calls = &calls()[..58_000];
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("snapshot.redb");
    let is_full = Arc::new(AtomicBool::new(false));
    let (mut snapshots, _) = open(&path, &is_full);
    let (mut scorer, mut expected) = (Scorer::new(ScorerConfig::default()), Vec::new());
    let steps = [(0, 20_000, false), (20_000, 40_000, true), (40_000, 41_000, true), (41_000, 42_000, false)];
    for (from, to, full) in steps {
        feed(&mut scorer, &calls[from..to], from, &mut expected);
        is_full.store(full, Ordering::SeqCst);
        let covered = Covered { positions: Positions::from([((0, 0), to as i64)]), ..Covered::default() };
        snapshots.save(scorer.changes(covered));
        let outcome = snapshots.finish().expect("it was being written");
        assert_eq!(outcome.is_err(), full, "{outcome:?}");
        if outcome.is_err() {
            scorer.snapshot_failed();
        }
    }
    drop(snapshots);
    let (_snapshots, loaded) = open(&path, &is_full);
    let mut loaded = loaded.expect("a snapshot");
    assert_eq!(loaded.covered.positions, Positions::from([((0, 0), 42_000)]));
    let mut verdicts = Vec::new();
    feed(&mut loaded.scorer, &calls[42_000..], 42_000, &mut verdicts);
    expected.clear();
    feed(&mut scorer, &calls[42_000..], 42_000, &mut expected);
    assert!(!expected.is_empty(), "the odd service is noticed");
    assert_eq!(verdicts, expected);
    assert_eq!(loaded.scorer.tally().edges, scorer.tally().edges);
}
