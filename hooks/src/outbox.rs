//! Where effects are kept: what is about to be done is on disk before it is done.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
};

use qualm_model::time::Timestamp;
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::Deserialize;

use crate::effect::{Key, Stored, VERSION};

/// Key (JSON) → effect (JSON).
const EFFECTS: TableDefinition<'_, &str, &str> = TableDefinition::new("effects");
/// Name of a hook → when it acted lately (JSON), for its cap.
const ACTS: TableDefinition<'_, &str, &str> = TableDefinition::new("acts");
/// The file in the state directory.
pub const FILE: &str = "hooks.redb";

/// An outbox that cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The file cannot be used.
    #[error("outbox of hooks {}: {problem}; free space, or mend its rights; what was done stands and is undone once it can be written", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Written by a later release.
    #[error("outbox of hooks {}: version {found}, this release reads up to {VERSION}; run the release that wrote it, or undo by hand what `qualm hooks list` of it shows and move the file away", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// What is kept of all effects.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kept {
    /// The effects.
    pub effects: BTreeMap<Key, Stored>,
    /// When each hook acted lately.
    pub acts: BTreeMap<String, VecDeque<Timestamp>>,
}

/// The store.
#[derive(Debug)]
pub struct Outbox {
    path: PathBuf,
    database: Database,
    /// The disk is full.
    #[cfg(test)]
    pub(crate) is_full: std::cell::Cell<bool>,
}

#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

impl Outbox {
    /// Opens the outbox in a state directory, or makes it.
    ///
    /// # Errors
    /// It cannot be read whole, or was written by a later release.
    pub fn open(directory: &Path) -> Result<(Self, Kept), OutboxError> {
        let path = directory.join(FILE);
        let unusable = |problem: String| OutboxError::Unusable { path: path.clone(), problem };
        let database = Database::create(&path).map_err(|error| unusable(error.to_string()))?;
        let outbox = Self {
            path: path.clone(),
            database,
            #[cfg(test)]
            is_full: std::cell::Cell::new(false),
        };
        let kept = outbox.read()?;
        Ok((outbox, kept))
    }

    fn unusable(&self, error: &dyn std::fmt::Display) -> OutboxError {
        OutboxError::Unusable { path: self.path.clone(), problem: error.to_string() }
    }

    fn read(&self) -> Result<Kept, OutboxError> {
        let mut kept = Kept::default();
        let transaction = self.database.begin_read().map_err(|error| self.unusable(&error))?;
        // Tables are made by the first write.
        if let Ok(table) = transaction.open_table(EFFECTS) {
            for row in table.iter().map_err(|error| self.unusable(&error))? {
                let (_, value) = row.map_err(|error| self.unusable(&error))?;
                let effect = self.decode(value.value())?;
                kept.effects.insert(effect.key.clone(), effect);
            }
        }
        if let Ok(table) = transaction.open_table(ACTS) {
            for row in table.iter().map_err(|error| self.unusable(&error))? {
                let (hook, value) = row.map_err(|error| self.unusable(&error))?;
                let times = serde_json::from_str(value.value()).map_err(|error| self.unusable(&error))?;
                kept.acts.insert(hook.value().to_owned(), times);
            }
        }
        Ok(kept)
    }

    fn decode(&self, text: &str) -> Result<Stored, OutboxError> {
        let Versioned { v } = serde_json::from_str(text).map_err(|error| self.unusable(&error))?;
        if v > VERSION {
            return Err(OutboxError::Newer { path: self.path.clone(), found: v });
        }
        serde_json::from_str(text).map_err(|error| self.unusable(&error))
    }

    /// Writes effects, removes others, and is on disk when it returns.
    ///
    /// # Errors
    /// The disk refused: nothing of it is written.
    pub fn write<'a>(
        &self,
        changed: impl Iterator<Item = &'a Stored>,
        gone: &[Key],
        acts: &BTreeMap<String, VecDeque<Timestamp>>,
    ) -> Result<(), OutboxError> {
        #[cfg(test)]
        if self.is_full.get() {
            return Err(self.unusable(&"no space left on device"));
        }
        let text = |value: &Key| serde_json::to_string(value).map_err(|error| self.unusable(&error));
        let mut transaction = self.database.begin_write().map_err(|error| self.unusable(&error))?;
        transaction.set_durability(Durability::Immediate).map_err(|error| self.unusable(&error))?;
        {
            let mut table = transaction.open_table(EFFECTS).map_err(|error| self.unusable(&error))?;
            for key in gone {
                table.remove(text(key)?.as_str()).map_err(|error| self.unusable(&error))?;
            }
            for effect in changed {
                let row = serde_json::to_string(effect).map_err(|error| self.unusable(&error))?;
                table.insert(text(&effect.key)?.as_str(), row.as_str()).map_err(|error| self.unusable(&error))?;
            }
            let mut table = transaction.open_table(ACTS).map_err(|error| self.unusable(&error))?;
            for (hook, times) in acts {
                let row = serde_json::to_string(times).map_err(|error| self.unusable(&error))?;
                table.insert(hook.as_str(), row.as_str()).map_err(|error| self.unusable(&error))?;
            }
        }
        transaction.commit().map_err(|error| self.unusable(&error))
    }
}
