//! The snapshot: state and position saved together, in one transaction; a base plus the keys changed since.
//!
//! The loop turns what has changed into bytes, a little between batches ([`Scorer::collect`]), and what is about to change
//! before it does: the snapshot is of the moment at which it was begun. A thread of its own writes it.
//! redb keeps the base and makes each write atomic and durable: after `kill -9` the file is that of the last
//! transaction. The offsets in it are what may be committed to Kafka.

mod aside;
mod glance;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
};

use qualm_model::event::Positions;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::glance::{Glance, Known, glance};
use crate::{
    config::{Budget, ScorerConfig},
    estate::Estate,
    forgotten::Forgotten,
    mesh::{Delta, Mesh, SourceKey},
    order::Run,
    pending::{Gone, Taken},
    scorer::{Scorer, Tally},
    shard::{Attribute, Edge, Link, Seen, Shard, Source},
    standing::Standing,
    watermark::Watermark,
};

/// Version of the snapshot's form. Every release reads that of the release before.
pub const VERSION: u32 = 1;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const NAMES: TableDefinition<'_, (u8, u32), &str> = TableDefinition::new("names");
const SOURCES: TableDefinition<'_, (u8, u32), &[u8]> = TableDefinition::new("sources");
const EDGES: TableDefinition<'_, (u8, u32, u32), &[u8]> = TableDefinition::new("edges");
const KNOWN: TableDefinition<'_, (u8, &[u8]), &[u8]> = TableDefinition::new("known");
const RESTS: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("rests");
/// Runs since the snapshot before, by the number of the snapshot.
const ORDER: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("order");
const FORGOTTEN: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("forgotten");

/// Snapshots for which the order of reading is kept.
const ORDERS: u64 = 4096;

/// A snapshot that cannot be used; names the file and the way on.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file is damaged or no snapshot.
    #[error(
        "{file}: the snapshot is damaged ({problem}); move it away to start from history, decisions that stand are kept in the journal"
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What was found.
        problem: String,
    },
    /// A newer release wrote it.
    #[error(
        "{file}: the snapshot has version {found}, this release reads up to {VERSION}; start the release that wrote it, or move it away to start from history"
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It cannot be looked at from outside.
    #[error("{file}: the snapshot cannot be read: {problem}; check its permissions, or ask `qualm check` about it")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It cannot be written.
    #[error("{file}: the snapshot cannot be written: {problem}; check space and permissions of the directory")]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        problem: String,
    },
}

/// What belongs to no single key.
#[derive(Serialize, Deserialize)]
struct Whole {
    mesh: Mesh,
    watermark: Watermark,
    standings: Vec<(SourceKey, Standing)>,
    used: usize,
    tally: Tally,
}

/// Where the state stands in the inputs and in the journal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Covered {
    /// Next offsets to read.
    pub positions: Positions,
    /// First journal record that the state does not know of.
    pub journal: u64,
    /// Names of the inputs, in the order of the numbers by which positions name them; empty in what releases before
    /// wrote. Kept under a key of its own.
    #[serde(skip)]
    pub inputs: Vec<String>,
}

/// What one shard has in the air between two summaries.
#[derive(Serialize, Deserialize)]
struct Rest<D> {
    delta: D,
    touched: Vec<(u32, Link)>,
    unresolved: Vec<u32>,
    next_name: u32,
}

enum Put {
    Whole(Box<Whole>),
    Meta(&'static str, Vec<u8>),
    Estate(Box<Estate>),
    Name(u8, u32, Option<Arc<str>>),
    Taken(u8, Taken),
    Gone(u8, Gone),
    Rest(u8, Vec<u8>),
    Forgotten(u8, Forgotten),
    Order(Vec<u8>),
}

/// Everything that changed since the last snapshot.
pub struct Changes {
    puts: Vec<Put>,
    covered: Covered,
    first: Option<Box<dyn FnOnce() + Send>>,
}

impl Changes {
    /// Has them written only when `first` has returned; it may wait, as it runs on the writing thread.
    #[must_use]
    pub fn after(self, first: impl FnOnce() + Send + 'static) -> Self {
        Self { first: Some(Box::new(first)), ..self }
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").field("puts", &self.puts.len()).field("covered", &self.covered).finish()
    }
}

fn bytes<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain data can always be written")
}

impl Scorer {
    /// Begins a snapshot of the state as it is now, which covers `covered`. [`collect`](Self::collect) it, a little
    /// between batches, before the next one is begun.
    pub fn begin_snapshot(&mut self, covered: Covered) {
        let whole = Whole {
            mesh: self.mesh.clone(),
            watermark: self.watermark.clone(),
            standings: self.standings.iter().map(|(&key, standing)| (key, standing.clone())).collect(),
            used: self.used,
            tally: self.tally,
        };
        let mut puts = vec![
            Put::Whole(Box::new(whole)),
            Put::Meta("covered", bytes(&covered)),
            Put::Meta("inputs", bytes(&covered.inputs)),
            Put::Meta("budget", bytes(&self.config.budget)),
            Put::Estate(Box::new(self.estate.clone())),
            Put::Order(bytes(&self.order.take())),
        ];
        for (index, shard) in self.shards.iter_mut().enumerate() {
            begin_shard(index as u8, shard, &mut puts);
        }
        self.collecting = Some(Changes { puts, covered, first: None });
    }

    /// Collects up to `most` keys of the snapshot that was begun; the snapshot, when all are. What changes meanwhile is
    /// in it as it was.
    pub fn collect(&mut self, most: usize) -> Option<Changes> {
        let changes = self.collecting.as_mut()?;
        let mut left = most;
        for (index, shard) in self.shards.iter_mut().enumerate() {
            shard.collect(&mut left);
            if !shard.changed.pending.is_empty() {
                return None;
            }
            let taken = shard.changed.pending.taken.drain(..);
            changes.puts.extend(taken.map(|taken| Put::Taken(index as u8, taken)));
        }
        self.shards.iter_mut().for_each(|shard| shard.changed.pending.open = false);
        self.collecting.take()
    }

    /// Whether a snapshot was begun and is not collected yet.
    pub fn is_collecting(&self) -> bool {
        self.collecting.is_some()
    }

    /// Takes what has changed since the last snapshot, for one that covers `covered`, at once.
    pub fn changes(&mut self, covered: Covered) -> Changes {
        // One that was begun is not lost: its changes are in no file.
        let before = self.collect(usize::MAX);
        self.begin_snapshot(covered);
        let mut changes = self.collect(usize::MAX).expect("it was begun, and all is collected");
        if let Some(before) = before {
            changes.puts.splice(0..0, before.puts);
        }
        changes
    }
}

/// What does not wait: what is gone, names, and what is in the air.
fn begin_shard(index: u8, shard: &mut Shard, puts: &mut Vec<Put>) {
    let changed = &mut shard.changed;
    changed.begin();
    for gone in changed.gone.drain(..) {
        puts.push(Put::Gone(index, gone));
    }
    for id in changed.names_gone.drain(..) {
        puts.push(Put::Name(index, id, None));
    }
    for id in changed.names_from..shard.names.next_id() {
        if let Some(text) = shard.names.existing(id) {
            puts.push(Put::Name(index, id, Some(text)));
        }
    }
    changed.names_from = shard.names.next_id();
    let rest = Rest {
        delta: &shard.delta,
        touched: shard.touched.iter().filter_map(|id| Some((*id, shard.links.get(id)?.clone()))).collect(),
        unresolved: shard.unresolved.clone(),
        next_name: shard.names.next_id(),
    };
    puts.push(Put::Rest(index, bytes(&rest)));
    if std::mem::take(&mut changed.forgotten) {
        puts.push(Put::Forgotten(index, shard.forgotten.clone()));
    }
}

/// The snapshot file, with its writing thread.
#[derive(Debug)]
pub struct Snapshots {
    changes: mpsc::SyncSender<Changes>,
    written: mpsc::Receiver<Result<Covered, SnapshotError>>,
    writing: bool,
}

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
        self.scorer.watermark.renumber(number);
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
        let database = Database::create(&file).map_err(|error| match error {
            redb::DatabaseError::Storage(redb::StorageError::Io(error))
                if error.kind() != std::io::ErrorKind::InvalidData =>
            {
                unwritable(error.to_string())
            }
            redb::DatabaseError::DatabaseAlreadyOpen => unwritable("another instance of Qualm has it open".to_owned()),
            error => SnapshotError::Damaged { file: file.clone(), problem: error.to_string() },
        })?;
        let loaded = load(&database, config, &file)?;
        let (changes, incoming) = mpsc::sync_channel::<Changes>(1);
        let (done, written) = mpsc::channel();
        let path = file.clone();
        let writer = move || {
            for mut changes in incoming {
                if let Some(first) = changes.first.take() {
                    first();
                }
                let outcome = write(&database, changes)
                    .map_err(|error| SnapshotError::Unwritable { file: path.clone(), problem: error.to_string() });
                if done.send(outcome).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("snapshot".to_owned()).spawn(writer).map_err(|e| unwritable(e.to_string()))?;
        Ok((Self { changes, written, writing: false }, loaded))
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
        read().map_err(|problem| SnapshotError::Damaged { file: file.clone(), problem: problem.to_string() })
    }

    /// Whether the last save is done, so that the next may begin.
    pub fn is_idle(&self) -> bool {
        !self.writing
    }

    /// Hands over a snapshot to be written. Only when [`is_idle`](Self::is_idle).
    pub fn save(&mut self, changes: Changes) {
        self.writing = self.changes.send(changes).is_ok();
    }

    /// What a save that has ended since covers; never waits.
    pub fn poll(&mut self) -> Option<Result<Covered, SnapshotError>> {
        let outcome = self.written.try_recv().ok()?;
        self.writing = false;
        Some(outcome)
    }

    /// Waits for a save that is under way.
    pub fn finish(&mut self) -> Option<Result<Covered, SnapshotError>> {
        if !self.writing {
            return None;
        }
        self.writing = false;
        self.written.recv().ok()
    }
}

fn write(database: &Database, changes: Changes) -> Result<Covered, redb::Error> {
    let transaction = database.begin_write()?;
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
        for put in changes.puts {
            match put {
                Put::Whole(whole) => drop(meta.insert("whole", &bytes(&whole)[..])?),
                Put::Meta(key, value) => drop(meta.insert(key, &value[..])?),
                Put::Estate(estate) => drop(meta.insert("estate", &bytes(&estate)[..])?),
                Put::Name(shard, id, Some(text)) => drop(names.insert((shard, id), &*text)?),
                Put::Name(shard, id, None) => drop(names.remove((shard, id))?),
                Put::Taken(shard, Taken::Source(id, value)) => drop(sources.insert((shard, id), &value[..])?),
                Put::Taken(shard, Taken::Edge((from, to), value)) => {
                    edges.insert((shard, from, to), &value[..])?;
                }
                Put::Taken(shard, Taken::Known(key, seen)) => {
                    known.insert((shard, &bytes(&key)[..]), &bytes(&seen)[..])?;
                }
                Put::Gone(shard, Gone::Source(id)) => drop(sources.remove((shard, id))?),
                Put::Gone(shard, Gone::Edge((from, to))) => drop(edges.remove((shard, from, to))?),
                Put::Gone(shard, Gone::Known(key)) => drop(known.remove((shard, &bytes(&key)[..]))?),
                Put::Rest(shard, value) => drop(rests.insert(shard, &value[..])?),
                Put::Forgotten(shard, value) => drop(forgotten.insert(shard, &bytes(&value)[..])?),
                Put::Order(value) => {
                    let number = order.last()?.map_or(0, |(number, _)| number.value() + 1);
                    order.insert(number, &value[..])?;
                    order.retain_in(..number.saturating_sub(ORDERS - 1), |_, _| false)?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(changes.covered)
}

fn load(database: &Database, config: ScorerConfig, file: &Path) -> Result<Option<Loaded>, SnapshotError> {
    let damaged = |problem: String| SnapshotError::Damaged { file: file.to_owned(), problem };
    let read = database.begin_read().map_err(|error| damaged(error.to_string()))?;
    let meta = match read.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(damaged(error.to_string())),
    };
    version_of(&meta)
        .map_err(|problem| damaged(problem.to_string()))?
        .map_err(|found| SnapshotError::Newer { file: file.to_owned(), found })?;
    let mut scorer = Scorer::new(config);
    let covered = restore(&read, &meta, &mut scorer).map_err(|problem| damaged(problem.to_string()))?;
    Ok(Some(Loaded { scorer, covered }))
}

type AnyError = Box<dyn std::error::Error>;

/// That the form is one that this release reads; otherwise, of a newer one, its version.
fn version_of(meta: &redb::ReadOnlyTable<&'static str, &'static [u8]>) -> Result<Result<(), u32>, AnyError> {
    let version = meta.get("version")?.and_then(|value| value.value().try_into().ok()).map(u32::from_le_bytes);
    match version {
        Some(VERSION) => Ok(Ok(())),
        Some(found) if found > VERSION => Ok(Err(found)),
        _ => Err("it has no version".into()),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AnyError> {
    Ok(postcard::from_bytes(bytes)?)
}

fn restore(
    read: &redb::ReadTransaction,
    meta: &redb::ReadOnlyTable<&'static str, &'static [u8]>,
    scorer: &mut Scorer,
) -> Result<Covered, AnyError> {
    let part = |key| meta.get(key)?.ok_or_else(|| AnyError::from(format!("`{key}` is missing")));
    let whole: Whole = parse(part("whole")?.value())?;
    let mut covered: Covered = parse(part("covered")?.value())?;
    if let Some(inputs) = meta.get("inputs")? {
        covered.inputs = parse(inputs.value())?;
    }
    (scorer.mesh, scorer.watermark, scorer.used, scorer.tally) = (whole.mesh, whole.watermark, whole.used, whole.tally);
    scorer.standings = whole.standings.into_iter().collect();
    if let Some(estate) = meta.get("estate")? {
        scorer.estate = parse(estate.value())?;
    }
    // Only where it is another one: reading the curves out of turn is itself a change.
    if let Some(budget) = meta.get("budget")?
        && parse::<Budget>(budget.value())? != scorer.config.budget
    {
        scorer.mesh.read_curves(&scorer.config.budget);
    }
    for entry in read.open_table(NAMES)?.iter()? {
        let (key, text) = entry?;
        let (index, id) = key.value();
        shard_mut(scorer, index)?.names.restore(id, text.value().into());
    }
    for entry in read.open_table(SOURCES)?.iter()? {
        let (key, value) = entry?;
        let (index, id) = key.value();
        shard_mut(scorer, index)?.sources.insert(id, Box::new(parse::<Source>(value.value())?));
    }
    for entry in read.open_table(EDGES)?.iter()? {
        let (key, value) = entry?;
        let (index, from, to) = key.value();
        shard_mut(scorer, index)?.edges.insert((from, to), Box::new(parse::<Edge>(value.value())?));
    }
    for entry in read.open_table(KNOWN)?.iter()? {
        let (key, value) = entry?;
        let (index, attribute) = key.value();
        let attribute: Attribute = parse(attribute)?;
        shard_mut(scorer, index)?.known.insert(attribute, parse::<Seen>(value.value())?);
    }
    for entry in read.open_table(FORGOTTEN)?.iter()? {
        let (key, value) = entry?;
        shard_mut(scorer, key.value())?.forgotten = parse(value.value())?;
    }
    for entry in read.open_table(RESTS)?.iter()? {
        let (key, value) = entry?;
        let rest: Rest<Delta> = parse(value.value())?;
        let index = key.value();
        let (mesh, shards) = (&scorer.mesh, &mut scorer.shards);
        let shard = shards.get_mut(usize::from(index)).ok_or("a shard that does not exist")?;
        shard.restore(rest.delta, rest.touched, rest.unresolved, rest.next_name, mesh);
    }
    Ok(covered)
}

fn shard_mut(scorer: &mut Scorer, index: u8) -> Result<&mut Shard, AnyError> {
    scorer.shards.get_mut(usize::from(index)).ok_or_else(|| AnyError::from("a shard that does not exist"))
}
