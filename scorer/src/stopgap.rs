//! Identities that were but an address, until it became known whose that is.

use std::iter;

use qualm_model::time::{Span, Timestamp};

use crate::{scorer::Scorer, shard::shard_of};

/// What is known of an address after so long is its own: it may be a machine outside of the mesh.
const YOUNG: Span = Span(10 * Span::MINUTE.0);

impl Scorer {
    /// Lets go of the identity that a new pod had for the moments before its own proxy said who it is: a restart makes no
    /// new one. What stands against it stays until its lease ends.
    pub(crate) fn forget_young(&mut self, address: &str, now: Timestamp) {
        let index = shard_of(address);
        let shard = &mut self.shards[usize::from(index)];
        let Some(id) = shard.names.known(address) else { return };
        let is_young = shard.sources.get(&id).is_some_and(|source| now - source.first <= YOUNG);
        if !is_young || self.standings.get(&(index, id)).is_some() {
            return;
        }
        self.used = self.used.saturating_sub(shard.fold_sources(&iter::once(id).collect()));
        self.mesh.forget_identities(1);
    }
}
