//! Everybody who stands above *trusted*, and when the first of them is due.

use foldhash::fast::FixedState;
use hashbrown::{HashMap, hash_map};
use qualm_model::{level::Level, time::Timestamp};

use crate::{mesh::SourceKey, standing::Standing};

/// Where identities stand, by key.
#[derive(Debug, Default)]
pub(crate) struct Standings {
    by_key: HashMap<SourceKey, Standing, FixedState>,
    /// No lease ends before: of what stands now, and of what was decided on history. `None` is not known.
    first_end: [Option<Timestamp>; 2],
}

impl FromIterator<(SourceKey, Standing)> for Standings {
    fn from_iter<T: IntoIterator<Item = (SourceKey, Standing)>>(standings: T) -> Self {
        Self { by_key: standings.into_iter().collect(), first_end: [None; 2] }
    }
}

/// Bytes of one standing: its texts, and its place in the map.
pub(crate) const STANDING_BYTES: usize = 2 * (size_of::<Standing>() + 16) + 224;

impl Standings {
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    #[inline]
    pub(crate) fn get(&self, key: &SourceKey) -> Option<&Standing> {
        self.by_key.get(key)
    }

    /// The level at which an identity stands.
    #[inline]
    pub(crate) fn level(&self, key: &SourceKey) -> Level {
        self.get(key).map_or(Level::Trusted, |standing| standing.level)
    }

    /// Whether reaching `level` changes where an identity stands. What is of today takes the place of what history says,
    /// at whatever level; what history says never takes the place of what is of today.
    #[inline]
    pub(crate) fn is_news(&self, key: &SourceKey, level: Level, is_historic: impl Fn() -> bool) -> bool {
        let Some(standing) = self.get(key) else { return true };
        match (standing.historic, is_historic()) {
            (true, false) => true,
            (false, true) => false,
            _ => level > standing.level,
        }
    }

    pub(crate) fn insert(&mut self, key: SourceKey, standing: Standing) -> Option<Standing> {
        if let Some(first) = &mut self.first_end[usize::from(standing.historic)] {
            *first = (*first).min(standing.expires);
        }
        self.by_key.insert(key, standing)
    }

    pub(crate) fn remove(&mut self, key: &SourceKey) -> Option<Standing> {
        self.by_key.remove(key)
    }

    /// Visits everybody who stands, to put something in that changes no level and no lease.
    pub(crate) fn for_each(&mut self, mut visit: impl FnMut(SourceKey, &mut Standing)) {
        self.by_key.iter_mut().for_each(|(key, standing)| visit(*key, standing));
    }

    pub(crate) fn values(&self) -> hash_map::Values<'_, SourceKey, Standing> {
        self.by_key.values()
    }

    pub(crate) fn iter(&self) -> hash_map::Iter<'_, SourceKey, Standing> {
        self.by_key.iter()
    }

    /// Whose lease has ended by `now`, of those that are `historic` or not, in the order of keys. Asked at every summary: mostly nobody's.
    pub(crate) fn ended(&mut self, now: Timestamp, historic: Historic) -> Vec<SourceKey> {
        let historic = historic == Historic::Yes;
        let first_end = &mut self.first_end[usize::from(historic)];
        if first_end.is_some_and(|first| now < first) {
            return Vec::new();
        }
        let mut next = Timestamp(i64::MAX);
        let mut ended = Vec::new();
        for (&key, standing) in self.by_key.iter().filter(|(_, standing)| standing.historic == historic) {
            if standing.expires <= now {
                ended.push(key);
            } else {
                next = next.min(standing.expires);
            }
        }
        // Whoever is ended is removed or stands anew, with another end.
        *first_end = Some(next);
        ended.sort_unstable();
        ended
    }
}

/// Whether a decision was made on events too old to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Historic {
    Yes,
    No,
}
