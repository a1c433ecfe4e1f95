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
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, backends::FileBackend};

use self::mesh::{Call, batch, calls};
use super::{
    Covered, Loaded, Snapshots, Whole,
    before::{edge_of, source_of},
    bytes,
    store::{EDGES, META, SOURCES, parse},
};
use crate::{
    config::ScorerConfig,
    estate::{Credentials, Estate},
    scorer::Scorer,
    shard::Hours,
    verdict::Verdict,
};

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

/// Questions that version 1 asked.
const QUESTIONS_OF_VERSION_1: usize = 25;

/// Writes a snapshot again as version 1 had it: edges without a rhythm, a mesh that asks fewer questions.
fn as_version_1(path: &Path) {
    let database = Database::open(path).expect("a snapshot");
    let read = database.begin_read().expect("it is read");
    let sources = read.open_table(SOURCES).expect("sources");
    let sources = sources.iter().expect("sources").map(|entry| {
        let (key, value) = entry.expect("a source");
        let mut source = source_of(value.value(), super::VERSION).expect("a source of this version");
        (source.carriers, source.other, source.unlike, source.slow) = Default::default();
        let mut old = bytes(&source);
        old.truncate(old.len() - bytes(&(source.other, &source.unlike, &source.slow)).len());
        assert_eq!(old.pop(), Some(0), "what came later stands at the end");
        (key.value(), old)
    });
    let sources: Vec<_> = sources.collect();
    let edges = read.open_table(EDGES).expect("edges");
    let edges = edges.iter().expect("edges").map(|entry| {
        let (key, value) = entry.expect("an edge");
        let mut edge = edge_of(value.value(), super::VERSION).expect("an edge of this version");
        edge.rhythm = None;
        edge.hours = Hours::default();
        let mut old = bytes(&edge);
        old.truncate(old.len() - bytes(&edge.hours).len());
        assert_eq!(old.pop(), Some(0), "what came later stands at the end");
        (key.value(), old)
    });
    let edges: Vec<_> = edges.collect();
    let meta = read.open_table(META).expect("meta");
    let mut whole: Whole = parse(meta.get("whole").expect("it is read").expect("it is there").value()).expect("whole");
    whole.mesh.ask_only(QUESTIONS_OF_VERSION_1);
    let estate: Estate =
        parse(meta.get("estate").expect("it is read").expect("it is there").value()).expect("the estate");
    let estate = bytes(&estate.without_credentials());
    let estate = estate.strip_suffix(&bytes(&Credentials::default())[..]).expect("it stands at the end").to_vec();
    drop((meta, read));
    let write = database.begin_write().expect("it is written");
    {
        let mut meta = write.open_table(META).expect("meta");
        meta.insert("version", &1_u32.to_le_bytes()[..]).expect("written");
        meta.insert("whole", &bytes(&whole)[..]).expect("written");
        meta.insert("estate", &estate[..]).expect("written");
        meta.remove("incidents").expect("removed");
        let mut table = write.open_table(SOURCES).expect("sources");
        for (key, source) in &sources {
            table.insert(*key, &source[..]).expect("written");
        }
        let mut table = write.open_table(EDGES).expect("edges");
        for (key, edge) in &edges {
            table.insert(*key, &edge[..]).expect("written");
        }
    }
    write.commit().expect("committed");
}

#[test]
fn a_snapshot_of_the_release_before_is_read_and_written_on_as_one_of_this() {
    let calls = &calls()[..58_000];
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("snapshot.redb");
    let never = Arc::new(AtomicBool::new(false));
    let save = |snapshots: &mut Snapshots, scorer: &mut Scorer| {
        snapshots.save(scorer.changes(Covered::default()));
        snapshots.finish().expect("it was being written").expect("it is written");
    };
    let (mut scorer, mut before) = (Scorer::new(ScorerConfig::default()), Vec::new());
    let (mut snapshots, _) = open(&path, &never);
    feed(&mut scorer, &calls[..50_000], 0, &mut before);
    save(&mut snapshots, &mut scorer);
    drop(snapshots);
    as_version_1(&path);
    let (mut snapshots, loaded) = open(&path, &never);
    let mut scorer = loaded.expect("a snapshot of version 1").scorer;
    feed(&mut scorer, &calls[50_000..51_000], 50_000, &mut before);
    save(&mut snapshots, &mut scorer);
    drop(snapshots);
    let (_snapshots, loaded) = open(&path, &never);
    let (mut again, mut verdicts, mut expected) = (loaded.expect("one of this version").scorer, Vec::new(), Vec::new());
    feed(&mut scorer, &calls[51_000..], 51_000, &mut expected);
    feed(&mut again, &calls[51_000..], 51_000, &mut verdicts);
    assert!(!expected.is_empty(), "the odd service is noticed");
    assert_eq!(verdicts, expected);
}
