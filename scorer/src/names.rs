//! Names of one shard as small integers.

use std::{hash::BuildHasher, sync::Arc};

use foldhash::quality::FixedState;
use hashbrown::{HashMap, HashSet, HashTable};

/// Text to id and back. Ids are never used again, and nothing visible (order, ties, outputs) depends on one.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// By the hash of the text, which is kept once.
    ids: HashTable<u32>,
    texts: HashMap<u32, Arc<str>, foldhash::fast::FixedState>,
    next: u32,
}

impl Names {
    /// The id of `text`, a new one where it is new.
    pub(crate) fn id(&mut self, text: &str) -> u32 {
        if let Some(id) = self.known(text) {
            return id;
        }
        let id = self.next;
        self.restore(id, Arc::from(text));
        id
    }

    /// The id of `text`, where it has one.
    pub(crate) fn known(&self, text: &str) -> Option<u32> {
        self.ids.find(hash(text), |id| self.text(*id) == text).copied()
    }

    /// The text of an id; empty where it was let go.
    pub(crate) fn text(&self, id: u32) -> &str {
        self.texts.get(&id).map_or("", |text| text)
    }

    /// The text of an id, shared.
    pub(crate) fn shared(&self, id: u32) -> Arc<str> {
        self.texts.get(&id).cloned().unwrap_or_else(|| Arc::from(""))
    }

    /// Puts back a name from a snapshot.
    pub(crate) fn restore(&mut self, id: u32, text: Arc<str>) {
        self.next = self.next.max(id + 1);
        let hash_of_text = hash(&text);
        self.texts.insert(id, text);
        let texts = &self.texts;
        self.ids.insert_unique(hash_of_text, id, |id| texts.get(id).map_or(0, |text| hash(text)));
    }

    /// Lets go of every name that is not `used`; returns the ids let go.
    pub(crate) fn keep(&mut self, used: &HashSet<u32, foldhash::fast::FixedState>) -> Vec<u32> {
        let mut gone = Vec::new();
        self.ids.retain(|id| {
            let keep = used.contains(id);
            if !keep {
                gone.push(*id);
            }
            keep
        });
        for id in &gone {
            self.texts.remove(id);
        }
        // What a flood took is given back.
        self.texts.shrink_to(2 * self.texts.len());
        let texts = &self.texts;
        self.ids.shrink_to(2 * texts.len(), |id| texts.get(id).map_or(0, |text| hash(text)));
        gone
    }

    /// The text of an id, shared; `None` where it was let go.
    pub(crate) fn existing(&self, id: u32) -> Option<Arc<str>> {
        self.texts.get(&id).cloned()
    }

    /// Gives out no id below `next`: none is used twice within a snapshot's lineage.
    pub(crate) fn go_on_from(&mut self, next: u32) {
        self.next = self.next.max(next);
    }

    /// How many are held.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// Ids given out so far; what is at or above an earlier value is newer.
    pub(crate) fn next_id(&self) -> u32 {
        self.next
    }
}

fn hash(text: &str) -> u64 {
    FixedState::default().hash_one(text)
}
