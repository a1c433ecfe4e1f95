//! The snapshot's file, with its writing thread.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, Table, TableDefinition};
use serde::de::DeserializeOwned;

use super::{
    Changes, Covered, Put, Reach, SnapshotError, VERSION, bytes,
    restore::restore,
    soundness::{sound, unpanicked},
};
use crate::{
    config::ScorerConfig,
    order::Run,
    pending::{Gone, Taken},
    scorer::Scorer,
};

pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(super) const NAMES: TableDefinition<'_, (u8, u32), &str> = TableDefinition::new("names");
pub(super) const SOURCES: TableDefinition<'_, (u8, u32), &[u8]> = TableDefinition::new("sources");
pub(super) const EDGES: TableDefinition<'_, (u8, u32, u32), &[u8]> = TableDefinition::new("edges");
pub(super) const KNOWN: TableDefinition<'_, (u8, &[u8]), &[u8]> = TableDefinition::new("known");
pub(super) const RESTS: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("rests");
/// Runs since the snapshot before, by the number of the snapshot.
const ORDER: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("order");
pub(super) const FORGOTTEN: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("forgotten");

/// Snapshots for which the order of reading is kept, and bytes that it takes at most; the oldest goes first.
const ORDERS: usize = 4096;
const ORDER_BYTES: usize = 32 << 20;

/// The snapshot file, with its writing thread.
#[derive(Debug)]
pub struct Snapshots {
    changes: mpsc::SyncSender<Changes>,
    written: mpsc::Receiver<Result<Covered, SnapshotError>>,
    writing: bool,
    file: PathBuf,
}

/// Opens the database; again after a write that failed, as redb does nothing more with one that has seen an error.
type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// What was found in the file.
#[derive(Debug)]
pub struct Loaded {
    /// The scorer as it was.
    pub scorer: Scorer,
    /// What it covers.
    pub covered: Covered,
}

impl Loaded {
    /// Gives what was read of each input the number that the input has now, by its place in `inputs`: two of one name
    /// in the order in which they stand. Returns the names of those that are no longer there, whose positions are
    /// dropped. A snapshot without names is taken as it is.
    pub fn renumber(&mut self, inputs: &[String]) -> Vec<String> {
        let before = std::mem::replace(&mut self.covered.inputs, inputs.to_vec());
        if before.is_empty() || before == inputs {
            return Vec::new();
        }
        let now: Vec<Option<u16>> = (0..before.len()).map(|number| number_now(&before, number, inputs)).collect();
        let number = |source: u16| now.get(usize::from(source)).copied().flatten();
        let positions = std::mem::take(&mut self.covered.positions).into_iter();
        self.covered.positions =
            positions.filter_map(|((source, of), offset)| Some(((number(source)?, of), offset))).collect();
        self.scorer.estate.renumber(number);
        self.scorer.watermark.renumber(number);
        let sources = self.scorer.shards.iter_mut().flat_map(|shard| shard.sources.values_mut());
        sources.filter_map(|source| source.carriers.as_deref_mut()).for_each(|carriers| carriers.renumber(number));
        before.into_iter().zip(now).filter(|(_, now)| now.is_none()).map(|(name, _)| name).collect()
    }
}

/// Where the input that stood at `number` stands now.
fn number_now(before: &[String], number: usize, now: &[String]) -> Option<u16> {
    let name = &before[number];
    let nth = before[..number].iter().filter(|other| *other == name).count();
    let (place, _) = now.iter().enumerate().filter(|(_, other)| *other == name).nth(nth)?;
    u16::try_from(place).ok()
}

impl Snapshots {
    /// Opens `directory/snapshot.redb`, made where it does not exist, and reads what is in it.
    pub fn open(directory: &Path, config: ScorerConfig) -> Result<(Self, Option<Loaded>), SnapshotError> {
        let file = directory.join("snapshot.redb");
        let unwritable = |problem: String| SnapshotError::Unwritable { file: file.clone(), problem };
        std::fs::create_dir_all(directory).map_err(|error| unwritable(error.to_string()))?;
        sound(&file)?;
        let path = file.clone();
        Self::over(file, config, Box::new(move || Database::create(&path)))
    }

    /// What `open` gives, which is `file` by name.
    pub(super) fn over(
        file: PathBuf,
        config: ScorerConfig,
        open: Opener,
    ) -> Result<(Self, Option<Loaded>), SnapshotError> {
        let unwritable = |problem: String| SnapshotError::Unwritable { file: file.clone(), problem };
        let damaged = |problem: String| SnapshotError::Damaged { file: file.clone(), problem };
        let database = unpanicked(&open).map_err(damaged)?.map_err(|error| match error {
            DatabaseError::Storage(redb::StorageError::Io(error))
                if error.kind() != std::io::ErrorKind::InvalidData =>
            {
                unwritable(error.to_string())
            }
            DatabaseError::DatabaseAlreadyOpen => unwritable("another instance of Qualm has it open".to_owned()),
            error => damaged(error.to_string()),
        })?;
        let loaded = unpanicked(|| load(&database, config, &file)).map_err(damaged)??;
        let (changes, incoming) = mpsc::sync_channel::<Changes>(1);
        let (done, written) = mpsc::channel();
        let mut writer = Writer { open, database: Some(database), orders: VecDeque::new(), held: None };
        let path = file.clone();
        let run = move || {
            for changes in incoming {
                let outcome = writer
                    .save(changes)
                    .map_err(|error| SnapshotError::Unwritable { file: path.clone(), problem: error.to_string() });
                if done.send(outcome).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("snapshot".to_owned()).spawn(run).map_err(|e| unwritable(e.to_string()))?;
        Ok((Self { changes, written, writing: false, file }, loaded))
    }

    /// In which order events were taken, by the snapshot (oldest first) before which they were: of the last 4,096
    /// snapshots of a file that nobody has open.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn order(directory: &Path) -> Result<Vec<Vec<Run>>, SnapshotError> {
        let file = directory.join("snapshot.redb");
        let read = || -> Result<Vec<Vec<Run>>, AnyError> {
            let database = Database::open(&file)?;
            let read = database.begin_read()?;
            let order = read.open_table(ORDER)?;
            order.iter()?.map(|entry| parse(entry?.1.value())).collect()
        };
        sound(&file)?;
        unpanicked(read)
            .unwrap_or_else(|panic| Err(panic.into()))
            .map_err(|problem| SnapshotError::Damaged { file: file.clone(), problem: problem.to_string() })
    }

    /// Whether the last save is done, so that the next may begin.
    pub fn is_idle(&self) -> bool {
        !self.writing
    }

    /// Hands over a snapshot to be written. Only when [`is_idle`](Self::is_idle).
    pub fn save(&mut self, changes: Changes) {
        self.writing = true;
        // Where nobody takes it any more, `poll` says so.
        let _ = self.changes.send(changes);
    }

    /// What a save that has ended since covers; never waits. After an error the scorer is to be told
    /// ([`Scorer::snapshot_failed`]).
    pub fn poll(&mut self) -> Option<Result<Covered, SnapshotError>> {
        if !self.writing {
            return None;
        }
        let outcome = match self.written.try_recv() {
            Ok(outcome) => outcome,
            Err(mpsc::TryRecvError::Empty) => return None,
            Err(mpsc::TryRecvError::Disconnected) => Err(self.thread_has_ended()),
        };
        self.writing = false;
        Some(outcome)
    }

    /// Waits for a save that is under way.
    pub fn finish(&mut self) -> Option<Result<Covered, SnapshotError>> {
        if !self.writing {
            return None;
        }
        self.writing = false;
        Some(self.written.recv().unwrap_or_else(|_| Err(self.thread_has_ended())))
    }

    fn thread_has_ended(&self) -> SnapshotError {
        let problem = "the thread that writes it has ended, restart Qualm".to_owned();
        SnapshotError::Unwritable { file: self.file.clone(), problem }
    }
}

/// The thread's own.
struct Writer {
    open: Opener,
    /// `None` after an error, until it is opened again.
    database: Option<Database>,
    /// Orders of reading that are in no file yet, oldest first.
    orders: VecDeque<Vec<u8>>,
    /// Bytes of each that is in the file, oldest first; `None` until they were looked at.
    held: Option<VecDeque<usize>>,
}

impl Writer {
    fn save(&mut self, mut changes: Changes) -> Result<Covered, redb::Error> {
        if let Some(first) = changes.first.take() {
            first();
        }
        let orders = changes.puts.extract_if(.., |put| matches!(put, Put::Order(_)));
        self.orders.extend(orders.filter_map(|put| if let Put::Order(order) = put { Some(order) } else { None }));
        while self.orders.len() > ORDERS || self.orders.iter().map(Vec::len).sum::<usize>() > ORDER_BYTES {
            self.orders.pop_front();
        }
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.open)()?,
        };
        let mut held = match self.held.take() {
            Some(held) => held,
            None => sizes(&database)?,
        };
        // After an error it is dropped: redb would refuse everything from here on.
        write(&database, changes.puts, changes.reach, self.orders.make_contiguous(), &mut held)?;
        (self.database, self.held) = (Some(database), Some(held));
        self.orders.clear();
        Ok(changes.covered)
    }
}

fn write(
    database: &Database,
    puts: Vec<Put>,
    reach: Reach,
    orders: &[Vec<u8>],
    held: &mut VecDeque<usize>,
) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    // Its pages are on disk before the header names it: a page that does not fit after a kill is damage, never a commit
    // that was torn, for which redb would silently go back to the state before.
    transaction.set_two_phase_commit(true);
    if reach == Reach::Base {
        transaction.delete_table(NAMES)?;
        transaction.delete_table(SOURCES)?;
        transaction.delete_table(EDGES)?;
        transaction.delete_table(KNOWN)?;
        transaction.delete_table(RESTS)?;
        transaction.delete_table(FORGOTTEN)?;
    }
    {
        let mut meta = transaction.open_table(META)?;
        let mut names = transaction.open_table(NAMES)?;
        let mut sources = transaction.open_table(SOURCES)?;
        let mut edges = transaction.open_table(EDGES)?;
        let mut known = transaction.open_table(KNOWN)?;
        let mut rests = transaction.open_table(RESTS)?;
        let mut forgotten = transaction.open_table(FORGOTTEN)?;
        let mut order = transaction.open_table(ORDER)?;
        meta.insert("version", &VERSION.to_le_bytes()[..])?;
        append_orders(&mut order, orders, held)?;
        for put in puts {
            match put {
                Put::Whole(whole) => drop(meta.insert("whole", &bytes(&whole)[..])?),
                Put::Meta(key, value) => drop(meta.insert(key, &value[..])?),
                Put::Estate(estate) => {
                    meta.insert("estate", &bytes(&estate)[..])?;
                    meta.insert("stood_in", &bytes(estate.stood_in())[..])?;
                }
                Put::Name(shard, id, Some(text)) => drop(names.insert((shard, id), &*text)?),
                Put::Name(shard, id, None) => drop(names.remove((shard, id))?),
                Put::Taken(shard, Taken::Source(id, value)) => drop(sources.insert((shard, id), &value[..])?),
                Put::Taken(shard, Taken::Edge((from, to), value)) => {
                    edges.insert((shard, from, to), &value[..])?;
                }
                Put::Taken(shard, Taken::Known(key, seen)) => {
                    known.insert((shard, &bytes(&key)[..]), &seen[..])?;
                }
                Put::Gone(shard, Gone::Source(id)) => drop(sources.remove((shard, id))?),
                Put::Gone(shard, Gone::Edge((from, to))) => drop(edges.remove((shard, from, to))?),
                Put::Gone(shard, Gone::Known(key)) => drop(known.remove((shard, &bytes(&key)[..]))?),
                Put::Rest(shard, value) => drop(rests.insert(shard, &value[..])?),
                Put::Forgotten(shard, value) => drop(forgotten.insert(shard, &bytes(&value)[..])?),
                // They were taken out before.
                Put::Order(_) => {}
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Adds orders of reading, and takes away the oldest beyond the bounds. `held` are the bytes of each.
fn append_orders(
    table: &mut Table<'_, u64, &[u8]>,
    orders: &[Vec<u8>],
    held: &mut VecDeque<usize>,
) -> Result<(), redb::Error> {
    let next = table.last()?.map_or(0, |(number, _)| number.value() + 1);
    for (number, order) in (next..).zip(orders) {
        table.insert(number, &order[..])?;
        held.push_back(order.len());
    }
    let mut sum: usize = held.iter().sum();
    while held.len() > ORDERS || sum > ORDER_BYTES {
        sum -= held.pop_front().unwrap_or_default();
        table.pop_first()?;
    }
    Ok(())
}

/// Bytes of each order of reading in the file.
fn sizes(database: &Database) -> Result<VecDeque<usize>, redb::Error> {
    match database.begin_read()?.open_table(ORDER) {
        Ok(table) => table.iter()?.map(|entry| Ok(entry?.1.value().len())).collect(),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(VecDeque::new()),
        Err(error) => Err(error.into()),
    }
}

fn load(database: &Database, config: ScorerConfig, file: &Path) -> Result<Option<Loaded>, SnapshotError> {
    let damaged = |problem: String| SnapshotError::Damaged { file: file.to_owned(), problem };
    let read = database.begin_read().map_err(|error| damaged(error.to_string()))?;
    let meta = match read.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(damaged(error.to_string())),
    };
    let version = version_of(&meta)
        .map_err(|problem| damaged(problem.to_string()))?
        .map_err(|found| SnapshotError::Newer { file: file.to_owned(), found })?;
    let mut scorer = Scorer::new(config);
    let covered = restore(&read, &meta, version, &mut scorer).map_err(|problem| damaged(problem.to_string()))?;
    if version < VERSION {
        // What it wrote is in its form, and the file can have but one.
        scorer.snapshot_failed();
    }
    Ok(Some(Loaded { scorer, covered }))
}

pub(super) type AnyError = Box<dyn std::error::Error>;

/// The version of a form that this release reads; otherwise, of a newer one, its version as an error.
pub(super) fn version_of(
    meta: &redb::ReadOnlyTable<&'static str, &'static [u8]>,
) -> Result<Result<u32, u32>, AnyError> {
    let version = meta.get("version")?.and_then(|value| value.value().try_into().ok()).map(u32::from_le_bytes);
    match version {
        Some(found @ 1..=VERSION) => Ok(Ok(found)),
        Some(found) if found > VERSION => Ok(Err(found)),
        _ => Err("it has no version".into()),
    }
}

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AnyError> {
    Ok(postcard::from_bytes(bytes)?)
}
