//! When entries end. A lease is held on two clocks and ends at the earlier: the wall clock that it was granted in,
//! and the monotonic clock from the moment it was first seen. So a wall clock that steps back never extends one.

use std::{collections::HashMap, time::Duration};

use qualm_model::time::Timestamp;
use tokio::time::Instant;

use crate::table::{TrustEntry, TrustTable};

/// The ends of the entries of one table.
#[derive(Debug, Default)]
pub struct Leases {
    ends: HashMap<String, End>,
}

#[derive(Debug, Clone, Copy)]
struct End {
    wall: Timestamp,
    monotonic: Instant,
}

impl Leases {
    /// Takes over a table. An entry that was there before with the same end keeps the deadline it had.
    pub fn adopt(&mut self, table: &TrustTable, wall: Timestamp, monotonic: Instant) {
        let before = std::mem::take(&mut self.ends);
        for entry in &table.entries {
            let rest = Duration::from_nanos(u64::try_from((entry.expires - wall).0).unwrap_or(0));
            // A lease that reaches beyond what the clock can count is as good as a century.
            let mut end = monotonic.checked_add(rest).unwrap_or(monotonic + Duration::from_secs(100 * 365 * 86_400));
            if let Some(known) = before.get(&entry.decision).filter(|known| known.wall == entry.expires) {
                end = end.min(known.monotonic);
            }
            self.ends.insert(entry.decision.clone(), End { wall: entry.expires, monotonic: end });
        }
    }

    /// When `entry` ends on the monotonic clock; `None` when it has ended on either clock.
    ///
    /// What has ended once stays ended, even if the wall clock then steps back.
    pub fn end(&mut self, entry: &TrustEntry, wall: Timestamp, monotonic: Instant) -> Option<Instant> {
        let end = self.ends.get_mut(&entry.decision)?;
        if end.wall <= wall {
            end.monotonic = end.monotonic.min(monotonic);
        }
        (end.monotonic > monotonic).then_some(end.monotonic)
    }
}

#[cfg(test)]
mod tests {
    use qualm_model::{level::Level, time::Span};

    use super::*;
    use crate::table::{Object, Subject};

    fn table(expires: i64) -> TrustTable {
        let entry = TrustEntry {
            decision: "d1".into(),
            subject: Subject { principal: "spiffe://m/a".into(), cluster: None, workload: None, instance: None },
            object: Object::Any,
            level: Level::Quarantined,
            enforce: true,
            decided: Timestamp::from_seconds(0),
            expires: Timestamp::from_seconds(expires),
            evidence_bits: 20.0,
            co_owners: Vec::new(),
            reason: String::new(),
            known: None,
        };
        TrustTable { version: 1, entries: vec![entry], model_version: String::new(), ..TrustTable::default() }
    }

    #[test]
    fn a_wall_clock_that_steps_back_never_extends_a_lease() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        let table = table(1_060);
        leases.adopt(&table, Timestamp::from_seconds(1_000), start);
        leases.adopt(&table, Timestamp::from_seconds(400), start + Duration::from_secs(30));
        let end = leases.end(&table.entries[0], Timestamp::from_seconds(400), start + Duration::from_secs(30));
        assert_eq!(end, Some(start + Duration::from_secs(60)));
        assert_eq!(leases.end(&table.entries[0], Timestamp::from_seconds(430), start + Duration::from_secs(60)), None);
    }

    #[test]
    fn a_wall_clock_that_runs_fast_ends_a_lease_as_it_says() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        let table = table(1_060);
        leases.adopt(&table, Timestamp::from_seconds(1_000), start);
        assert_eq!(leases.end(&table.entries[0], Timestamp::from_seconds(1_060), start), None);
        assert_eq!(leases.end(&table.entries[0], Timestamp::from_seconds(1_000), start), None, "it stays ended");
    }

    #[test]
    fn a_renewed_lease_ends_later() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        leases.adopt(&table(1_060), Timestamp::from_seconds(1_000), start);
        let renewed = table(1_120);
        leases.adopt(&renewed, Timestamp::from_seconds(1_000) + Span::SECOND, start + Duration::from_secs(1));
        let end = leases.end(&renewed.entries[0], Timestamp::from_seconds(1_001), start + Duration::from_secs(1));
        assert_eq!(end, Some(start + Duration::from_secs(120)));
    }
}
