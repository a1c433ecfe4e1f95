//! Which format each topic and file has had since when: what changed after an upgrade of whoever writes it.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
};

use qualm_ingest::{
    parse::Format,
    source::{Batch, Rejection},
};
use qualm_model::time::{Span, Timestamp};

/// Fewer records of a format are a chance.
const LEAST: u64 = 100;
/// A format that was not seen for so long while others were has ended, and one that came so long after the first
/// record was not there from the begin.
const APART: Span = Span(10 * Span::MINUTE.0);
/// Records in one bucket of the share that cannot be read; buckets that are looked at.
const BUCKET: u64 = 500;
const BUCKETS: usize = 4;
/// Share of a bucket that is not read, from which something is wrong, and below which nothing is.
const MUCH: f64 = 0.05;
const LITTLE: f64 = 0.01;

/// Of every topic and file, by its number.
#[derive(Debug, Default)]
pub(crate) struct Formats(BTreeMap<u16, Input>);

/// A format appeared in an input that had another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) source: u16,
    pub(crate) before: Format,
    pub(crate) after: Format,
    /// Event time of the first record.
    pub(crate) since: Timestamp,
}

#[derive(Debug)]
struct Seen {
    first: Timestamp,
    last: Timestamp,
    records: u64,
}

#[derive(Debug, Default)]
struct Input {
    begun: Option<Timestamp>,
    latest: Timestamp,
    formats: BTreeMap<Format, Seen>,
    told: Vec<Format>,
    /// Records and those of them that were not read, since the last change.
    since_change: (u64, u64),
    /// When the first of a bucket that could not be read came, its records, and those that were not read.
    bucket: (Timestamp, u64, u64),
    /// Shares of the latest buckets.
    shares: VecDeque<f64>,
    /// Since when much is not read that was read before, with the records since then.
    unread_since: Option<(Timestamp, u64, u64)>,
}

impl Formats {
    /// Takes in a batch; the changes that it shows.
    pub(crate) fn count(&mut self, batch: &Batch, wall: Timestamp) -> Vec<Change> {
        let at = batch.events.events().map(|event| event.report()).max();
        let mut counts: BTreeMap<u16, (u64, u64)> = BTreeMap::new();
        for read in &batch.read {
            counts.entry(read.source).or_default().0 += read.records;
            self.0.entry(read.source).or_default().see(read.format, read.records, at.unwrap_or(wall));
        }
        for rejected in batch.rejected.iter().filter(|rejected| matches!(rejected.why, Rejection::Invalid(_))) {
            counts.entry(rejected.position.source).or_default().1 += 1;
        }
        let mut changes = Vec::new();
        for (source, (read, unread)) in counts {
            let input = self.0.entry(source).or_default();
            let at = at.or(input.begun.map(|_| input.latest)).unwrap_or(wall);
            input.tally(at, read + unread, unread);
            changes.extend(input.change().map(|(before, after, since)| Change { source, before, after, since }));
        }
        changes
    }

    /// In words, what has changed in each input.
    pub(crate) fn words(&self, names: &[String]) -> Vec<String> {
        let words = |(&source, input): (&u16, &Input)| {
            let said = input.words()?;
            Some(format!("{}: {said}", names.get(usize::from(source)).map_or("an input", String::as_str)))
        };
        self.0.iter().filter_map(words).collect()
    }
}

impl Input {
    fn see(&mut self, format: Format, records: u64, at: Timestamp) {
        let seen = self.formats.entry(format).or_insert(Seen { first: at, last: at, records: 0 });
        (seen.last, seen.records) = (seen.last.max(at), seen.records + records);
    }

    fn tally(&mut self, at: Timestamp, records: u64, unread: u64) {
        self.begun = Some(self.begun.map_or(at, |begun| begun.min(at)));
        self.latest = self.latest.max(at);
        let add = |sum: &mut (u64, u64)| *sum = (sum.0 + records, sum.1 + unread);
        add(&mut self.since_change);
        if let Some((_, all, not_read)) = &mut self.unread_since {
            (*all, *not_read) = (*all + records, *not_read + unread);
        }
        if self.bucket.2 == 0 {
            self.bucket.0 = at;
        }
        (self.bucket.1, self.bucket.2) = (self.bucket.1 + records, self.bucket.2 + unread);
        if self.bucket.1 >= BUCKET {
            self.close_bucket();
        }
    }

    fn close_bucket(&mut self) {
        let (since, records, unread) = std::mem::take(&mut self.bucket);
        let share = unread as f64 / records as f64;
        let was_read = self.shares.len() == BUCKETS && self.shares.iter().all(|share| *share < LITTLE);
        if self.unread_since.is_none() && was_read && share >= MUCH {
            self.unread_since = Some((since, records, unread));
        }
        self.shares.push_back(share);
        if self.shares.len() > BUCKETS {
            self.shares.pop_front();
        }
        if self.shares.len() == BUCKETS && self.shares.iter().all(|share| *share < LITTLE) {
            self.unread_since = None;
        }
    }

    /// A format that has just become more than a chance, and was not there from the begin; and what was before.
    fn change(&mut self) -> Option<(Format, Format, Timestamp)> {
        let begun = self.begun?;
        let is_new = |(format, seen): &(&Format, &Seen)| {
            seen.records >= LEAST && seen.first - begun > APART && !self.told.contains(format)
        };
        let (&after, seen) = self.formats.iter().find(is_new)?;
        let since = seen.first;
        let others = self.formats.iter().filter(|(format, other)| **format != after && other.records >= LEAST);
        let (&before, _) = others.max_by_key(|(_, other)| other.last.min(since))?;
        self.told.push(after);
        let seen = self.formats[&after].records;
        self.since_change = (seen, 0);
        Some((before, after, since))
    }

    fn words(&self) -> Option<String> {
        let mut said = String::new();
        let mut add = |words: std::fmt::Arguments<'_>| {
            let comma = if said.is_empty() { "" } else { ", " };
            write!(said, "{comma}{words}").expect("writing to a String never fails");
        };
        if !self.told.is_empty() {
            let mut formats: Vec<_> = self.formats.iter().filter(|(_, seen)| seen.records >= LEAST).collect();
            formats.sort_by_key(|(_, seen)| seen.first);
            for (format, seen) in formats {
                match (self.told.contains(format), self.latest - seen.last > APART) {
                    (true, true) => add(format_args!("{format} from {} until {}", time(seen.first), time(seen.last))),
                    (true, false) => add(format_args!("{format} since {}", time(seen.first))),
                    (false, true) => add(format_args!("{format} until {}", time(seen.last))),
                    (false, false) => add(format_args!("{format} all along")),
                }
            }
        }
        match (self.unread_since, self.since_change) {
            (Some((since, records, unread)), _) => {
                add(format_args!("invalid since {}: {:.0} %", time(since), 100.0 * unread as f64 / records as f64));
            }
            (None, (records, unread)) if !self.told.is_empty() && unread > 0 => {
                add(format_args!("invalid since then: {:.0} %", 100.0 * unread as f64 / records as f64));
            }
            _ => {}
        }
        (!said.is_empty()).then_some(said)
    }
}

fn time(time: Timestamp) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(time.0)).ok();
    time.map_or_else(|| "?".to_owned(), |time| time.strftime("%Y-%m-%d %H:%MZ").to_string())
}

#[cfg(test)]
mod tests {
    use qualm_ingest::source::{Invalid, ReadAs, Rejected};
    use qualm_model::event::{EventBuilder, EventDraft, Position};

    use super::*;

    /// A batch read at a minute: so many records of a format, and so many that could not be read.
    fn batch(minute: i64, format: Format, records: u64, unread: usize) -> Batch {
        let at = Timestamp(Span::HOUR.0 + minute * Span::MINUTE.0);
        let mut builder = EventBuilder::new();
        builder.push(&EventDraft { start: at, report: at, ..EventDraft::default() });
        let rejected = Rejected { position: Position::default(), why: Invalid::Syntax.into() };
        Batch {
            events: builder.finish(),
            rejected: vec![rejected; unread],
            positions: [((0, 0), 1)].into(),
            lag: None,
            lost: Vec::new(),
            unvouched: Vec::new(),
            read: vec![ReadAs { source: 0, format, records }],
        }
    }

    fn read(formats: &mut Formats, minutes: std::ops::Range<i64>, format: Format, unread: usize) -> Vec<Change> {
        minutes.flat_map(|minute| formats.count(&batch(minute, format, 200, unread), Timestamp(0))).collect()
    }

    fn words(formats: &Formats) -> Vec<String> {
        formats.words(&["topic mesh".to_owned()])
    }

    #[test]
    fn a_format_that_changes_after_an_upgrade_is_told_once_with_its_time() {
        let mut formats = Formats::default();
        assert_eq!(read(&mut formats, 0..31, Format::IstioJson, 0), []);
        assert!(words(&formats).is_empty(), "nothing has changed");
        let changes = read(&mut formats, 31..60, Format::IstioText, 27);
        let [change] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((change.before, change.after), (Format::IstioJson, Format::IstioText));
        let [said] = &words(&formats)[..] else { panic!("{formats:?}") };
        assert_eq!(
            said,
            "topic mesh: istio_json until 1970-01-01 01:30Z, istio_text since 1970-01-01 01:31Z, \
             invalid since 1970-01-01 01:31Z: 12 %"
        );
    }

    #[test]
    fn an_input_of_two_formats_from_the_begin_has_not_changed() {
        let mut formats = Formats::default();
        for minute in 0..60 {
            let format = if minute % 2 == 0 { Format::IstioJson } else { Format::IstioText };
            assert_eq!(read(&mut formats, minute..minute + 1, format, 0), []);
        }
        assert!(words(&formats).is_empty());
    }

    #[test]
    fn records_that_can_no_longer_be_read_are_told_of_until_they_can() {
        let mut formats = Formats::default();
        read(&mut formats, 0..30, Format::IstioJson, 0);
        read(&mut formats, 30..40, Format::IstioJson, 200);
        let [said] = &words(&formats)[..] else { panic!("{formats:?}") };
        assert!(said.starts_with("topic mesh: invalid since 1970-01-01 01:") && said.contains('%'), "{said}");
        read(&mut formats, 40..60, Format::IstioJson, 0);
        assert!(words(&formats).is_empty(), "{:?}", words(&formats));
    }
}
