//! How much of each input was understood, and what is said of the rest: a little at a time.

use std::collections::BTreeMap;

use qualm_ingest::{
    counters::reason,
    source::{Batch, Invalid, Rejected, Rejection},
};
use qualm_model::time::{Span, Timestamp};

/// Of one input, what was told as single reasons is told again no more often than this.
const AGAIN: Span = Span::MINUTE;

/// Of every input, by its number.
#[derive(Debug, Default)]
pub(crate) struct Understood(BTreeMap<usize, Tally>);

/// What became of the records of one input.
#[derive(Debug, Default)]
struct Tally {
    name: String,
    events: u64,
    records: u64,
    /// Of these, those that are no record of the format, rather than one that counts for nothing.
    unread: u64,
    rejected: BTreeMap<&'static str, u64>,
    first_unread: Option<(i64, Rejection)>,
    /// Not told yet, of reasons that were told before.
    untold: BTreeMap<&'static str, u64>,
    told: Option<Timestamp>,
}

/// Of all inputs, which have ended, nothing was understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("none of the {records} records could be read: the first, row {row} of {input}, is `{reason}`; {remedy}")]
pub(crate) struct NothingUnderstood {
    records: u64,
    input: String,
    row: i64,
    reason: &'static str,
    remedy: String,
}

/// What to do where that is wrong with all of an input.
fn remedy(why: Rejection) -> String {
    match why {
        Rejection::Invalid(Invalid::PastTime) => format!(
            "they are older than `[history] oldest` allows: {}; `qualm backtest FILE --out DIR` reads logs of any age",
            Invalid::PastTime.remedy()
        ),
        Rejection::Invalid(
            why @ (Invalid::FutureTime | Invalid::TooLong | Invalid::NoRegistry | Invalid::UnknownSchema
            | Invalid::RegistryUnavailable | Invalid::Encoding),
        ) => why.remedy().to_owned(),
        _ => "name the format that they have (`qualm formats` lists them), or the columns with a `mapping`; `qualm look` tells \
              what is in a file"
            .to_owned(),
    }
}

impl Understood {
    /// Counts a batch, and says what is worth saying of what was rejected.
    pub(crate) fn count(&mut self, input: usize, name: &str, batch: &Batch, now: Timestamp) {
        let tally = self.0.entry(input).or_insert_with(|| Tally { name: name.to_owned(), ..Tally::default() });
        tally.events += batch.events.len() as u64;
        tally.records += (batch.events.len() + batch.rejected.len()) as u64;
        for rejected in &batch.rejected {
            tally.reject(rejected);
        }
        tally.tell(now);
    }

    /// Says what became of an input that has ended.
    pub(crate) fn end(&self, input: usize, name: &str) {
        let Some(tally) = self.0.get(&input) else {
            tracing::info!(input = name, events = 0, "has ended");
            return;
        };
        let (events, foreign) = (tally.events, tally.rejected.get(Rejection::Foreign.as_str()).copied().unwrap_or(0));
        let rejected = listed(&tally.rejected);
        if tally.events == 0 && tally.unread > 0 {
            tracing::warn!(input = name, events, rejected, foreign, "has ended, and nothing in it was understood");
        } else {
            tracing::info!(input = name, events, rejected, foreign, "has ended");
        }
    }

    /// Where there were records, and not one that is what it should be.
    pub(crate) fn nothing(&self) -> Option<NothingUnderstood> {
        let records = self.0.values().map(|tally| tally.records).sum();
        let unread: u64 = self.0.values().map(|tally| tally.unread).sum();
        if unread < records {
            return None;
        }
        let first = self.0.values().find_map(|tally| Some((tally, tally.first_unread?)));
        first.map(|(tally, (row, why))| NothingUnderstood {
            records,
            input: tally.name.clone(),
            row,
            reason: reason(why),
            remedy: remedy(why),
        })
    }
}

impl Tally {
    fn reject(&mut self, rejected: &Rejected) {
        let reason = reason(rejected.why);
        let row = rejected.position.offset;
        let so_far = self.rejected.entry(reason).or_default();
        *so_far += 1;
        let is_first = *so_far == 1;
        if !matches!(rejected.why, Rejection::Invalid(_) | Rejection::Foreign) {
            return;
        }
        self.unread += 1;
        self.first_unread.get_or_insert((row, rejected.why));
        // Lines of others among one's own are as it should be.
        if rejected.why == Rejection::Foreign && self.events > 0 {
            return;
        }
        if is_first {
            tracing::warn!(
                input = self.name,
                reason,
                partition = rejected.position.partition,
                offset = row,
                "a record is rejected"
            );
        } else {
            *self.untold.entry(reason).or_default() += 1;
        }
    }

    fn tell(&mut self, now: Timestamp) {
        // The first are told one by one; the minute begins with them.
        let told = *self.told.get_or_insert(now);
        if self.untold.is_empty() || now - told < AGAIN {
            return;
        }
        let rejected = listed(&std::mem::take(&mut self.untold));
        tracing::warn!(input = self.name, rejected, of = self.records, "more records are rejected");
        self.told = Some(now);
    }
}

/// As `syntax 12, foreign 3`.
fn listed(counts: &BTreeMap<&'static str, u64>) -> String {
    counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ")
}
