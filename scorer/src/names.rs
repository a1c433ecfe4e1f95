//! Names of one shard as small integers.

use std::sync::Arc;

use foldhash::quality::FixedState;
use hashbrown::{HashMap, HashSet};

/// Text to id and back. Ids are never used again, and nothing visible (order, ties, outputs) depends on one.
#[derive(Debug, Default)]
pub(crate) struct Names {
    ids: HashMap<Arc<str>, u32, FixedState>,
    texts: HashMap<u32, Arc<str>, foldhash::fast::FixedState>,
    next: u32,
}

impl Names {
    /// The id of `text`, a new one where it is new.
    pub(crate) fn id(&mut self, text: &str) -> u32 {
        if let Some(&id) = self.ids.get(text) {
            return id;
        }
        let (id, text) = (self.next, Arc::<str>::from(text));
        self.restore(id, text);
        id
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
        self.ids.insert(text.clone(), id);
        self.texts.insert(id, text);
    }

    /// Lets go of every name that is not `used`; returns the ids let go.
    pub(crate) fn keep(&mut self, used: &HashSet<u32, foldhash::fast::FixedState>) -> Vec<u32> {
        let mut gone = Vec::new();
        self.ids.retain(|_, id| {
            let keep = used.contains(id);
            if !keep {
                gone.push(*id);
            }
            keep
        });
        for id in &gone {
            self.texts.remove(id);
        }
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
