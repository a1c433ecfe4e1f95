//! What a snapshot knows of identities, for whoever asks from outside; also while an instance has it open.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use qualm_model::{level::Level, time::Timestamp};
use redb::{Database, ReadableDatabase, ReadableTable};

use super::{
    SnapshotError, Whole,
    aside::Aside,
    before::source_of,
    soundness::{unpanicked, verify},
    store::{AnyError, EDGES, META, NAMES, SOURCES, parse, version_of},
};
use crate::{config::Budget, mesh::SourceKey};

/// So often a reading begins anew where a snapshot was written meanwhile.
const ATTEMPTS: usize = 20;
/// Bytes of pages that are kept: all is read once.
const CACHE_BYTES: usize = 8 << 20;

/// An identity as the snapshot has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The principal, with `@cluster` where there are several.
    pub identity: String,
    /// When it was first seen, event time.
    pub first: Timestamp,
    /// When it was last seen, event time.
    pub last: Timestamp,
    /// Whom it has called: its edges.
    pub peers: usize,
    /// From how many places it has called; the last ones, where there were many.
    pub instances: usize,
    /// Where it stands, history not counted.
    pub level: Level,
}

/// The answer to one question.
#[derive(Debug)]
pub struct Glance {
    /// Every identity, in no order.
    pub names: Vec<String>,
    /// Those that were asked about.
    pub known: Vec<Known>,
    /// Levels that behaviour may lead to.
    pub armed: Vec<Level>,
    /// The first event's time.
    pub birth: Option<Timestamp>,
    /// How far event time had come.
    pub until: Option<Timestamp>,
}

/// Reads `directory/snapshot.redb` without locking or changing it: who is there, and of those whose name `is_asked`
/// what is known. `None` where there is no snapshot, or an empty one.
///
/// # Errors
/// The file cannot be read, is damaged or newer, or was written so often that no reading came to its end.
pub fn glance(
    directory: &Path,
    budget: &Budget,
    is_asked: impl Fn(&str) -> bool,
) -> Result<Option<Glance>, SnapshotError> {
    let file = directory.join("snapshot.redb");
    if !file.exists() {
        return Ok(None);
    }
    let mut attempt = 1;
    loop {
        let overtaken = Arc::new(AtomicBool::new(false));
        let backend = Aside::open(&file, overtaken.clone());
        let asked = backend.map_err(Unread::from).and_then(|backend| {
            // Damaged pages make redb panic; so may pages that were overwritten while they were read.
            unpanicked(|| read(backend, budget, &is_asked)).unwrap_or_else(|panic| Err(panic.into()))
        });
        match asked {
            Ok(glance) => return Ok(glance),
            Err(Unread::Newer(found)) => return Err(SnapshotError::Newer { file, found }),
            Err(Unread::Other(_)) if attempt < ATTEMPTS && overtaken.load(Ordering::Relaxed) => attempt += 1,
            Err(Unread::Other(problem)) => {
                return Err(SnapshotError::Unreadable { file, problem: problem.to_string() });
            }
        }
    }
}

/// Why there is no answer.
enum Unread {
    Newer(u32),
    Other(AnyError),
}

impl<E: Into<AnyError>> From<E> for Unread {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

fn read(backend: Aside, budget: &Budget, is_asked: &impl Fn(&str) -> bool) -> Result<Option<Glance>, Unread> {
    let mut database = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?;
    verify(&mut database)?;
    let read = database.begin_read()?;
    let meta = match read.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let version = version_of(&meta)?.map_err(Unread::Newer)?;
    let whole: Whole = parse(meta.get("whole")?.ok_or("`whole` is missing")?.value())?;
    let mut mesh = whole.mesh;
    if let Some(before) = meta.get("budget")?
        && parse::<Budget>(before.value())? != *budget
    {
        mesh.read_curves(budget);
    }
    let level_of = |key: SourceKey| {
        let standing = whole.standings.iter().find(|(other, standing)| *other == key && !standing.historic);
        standing.map_or(Level::Trusted, |(_, standing)| standing.level)
    };
    let (edges, texts) = (read.open_table(EDGES)?, read.open_table(NAMES)?);
    let (mut names, mut known) = (Vec::new(), Vec::new());
    for entry in read.open_table(SOURCES)?.iter()? {
        let (key, value) = entry?;
        let (shard, id) = key.value();
        let source = source_of(value.value(), version)?;
        // Which workload it is, where several share the principal, is in its name alone.
        let identity = texts.get((shard, id))?.map_or_else(|| source.identity(), |text| text.value().to_owned());
        if is_asked(&identity) {
            known.push(Known {
                identity: identity.clone(),
                first: source.first,
                last: source.last,
                peers: edges.range((shard, id, 0)..=(shard, id, u32::MAX))?.count(),
                instances: source.instances.len(),
                level: level_of((shard, id)),
            });
        }
        names.push(identity);
    }
    Ok(Some(Glance { names, known, armed: mesh.armed(), birth: mesh.birth(), until: whole.watermark.now() }))
}
