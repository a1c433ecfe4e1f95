//! Finds out, record by record, which format an input has.
//!
//! Whatever understood the record before is tried first, so that an input of one format costs no more than to name it.
//! An input may mix formats, and change them after an upgrade of whoever writes it.

use memchr::memmem;

use super::{
    Origin, Row,
    format::{Format, Grammar},
};
use crate::source::{Invalid, Rejection};

/// Records for which every format is tried; later ones are tried with what was found, and
const ALL_TRIED: u64 = 1024;
/// one in so many with everything again.
const TRIED_AGAIN: u64 = 64;

/// Reads records of any format.
#[derive(Debug)]
pub struct Auto {
    candidates: Vec<Candidate>,
    /// The one that understood the last record.
    latest: usize,
    /// Records that no format found so far understood.
    strange: u64,
}

#[derive(Debug)]
struct Candidate {
    format: Format,
    grammar: Grammar,
    events: u64,
}

impl Default for Auto {
    fn default() -> Self {
        let candidate = |&format: &Format| {
            let grammar = Grammar::of(format, None).ok()?;
            Some(Candidate { format, grammar, events: 0 })
        };
        let named = Format::ALL.iter().filter(|format| format.is_named());
        Self { candidates: named.filter_map(candidate).collect(), latest: 0, strange: 0 }
    }
}

impl Auto {
    /// Reads one record in the first format that understands it.
    pub fn parse(&mut self, record: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        let dialect = dialect_of(record);
        let latest = &mut self.candidates[self.latest];
        let first = if latest.speaks(dialect) { latest.read(record, row) } else { Err(Rejection::Foreign) };
        let Err(mut why) = first else { return Ok(()) };
        if why == Rejection::Part {
            return Err(why);
        }
        self.strange += 1;
        let all = self.strange <= ALL_TRIED || self.strange.is_multiple_of(TRIED_AGAIN);
        for (place, candidate) in self.candidates.iter_mut().enumerate() {
            if place == self.latest || !(all || candidate.events > 0) || !candidate.speaks(dialect) {
                continue;
            }
            match candidate.read(record, row) {
                Err(Rejection::Part) => {
                    self.latest = place;
                    return Err(Rejection::Part);
                }
                Err(other) => why = more_telling(why, other),
                Ok(()) => {
                    self.latest = place;
                    return Ok(());
                }
            }
        }
        Err(why)
    }

    /// Reads a line that stands in a JSON string as it was written there, where the latest format can read it so.
    pub(super) fn parse_escaped<'r, 'o: 'r>(
        &mut self,
        head: &str,
        row: &mut Row<'r>,
        origin_after: &mut dyn FnMut(usize) -> Option<Origin<'o>>,
    ) -> Option<()> {
        let dialect = dialect_of(head);
        let latest = &mut self.candidates[self.latest];
        if !latest.speaks(dialect) {
            return None;
        }
        latest.grammar.parse_escaped(head, row, origin_after)?;
        latest.events += 1;
        Some(())
    }

    /// A new file begins: what stood in the head of the one before is forgotten.
    pub fn begin_input(&mut self) {
        for candidate in &mut self.candidates {
            if let Grammar::ZeekTsv(zeek) = &mut candidate.grammar {
                zeek.begin_input();
            }
        }
    }

    /// The format that understood the last record.
    pub(super) fn latest(&self) -> Format {
        self.candidates[self.latest].format
    }

    /// The formats found, with the number of records of each, most first.
    pub fn found(&self) -> Vec<(Format, u64)> {
        let found = self.candidates.iter().filter(|candidate| candidate.events > 0);
        let mut found: Vec<_> = found.map(|candidate| (candidate.format, candidate.events)).collect();
        found.sort_by_key(|&(format, events)| (std::cmp::Reverse(events), format));
        found
    }
}

impl Candidate {
    /// Consul's lines are Istio's with other names in them: each would understand the other's.
    fn speaks(&self, dialect: Dialect) -> bool {
        match self.format {
            Format::IstioJson => dialect == Dialect::Other,
            Format::Consul => dialect == Dialect::Consul,
            _ => true,
        }
    }

    #[inline]
    fn read(&mut self, record: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        let outcome = self.grammar.parse(record, row);
        self.events += u64::from(matches!(outcome, Ok(()) | Err(Rejection::Part)));
        outcome
    }
}

/// Whose names stand in an access log of Envoy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Consul,
    Other,
}

/// Consul's proxies name the application behind them `local_app`, and others by names that end in `.consul`.
fn dialect_of(record: &str) -> Dialect {
    let has = |mark: &[u8]| memmem::find(record.as_bytes(), mark).is_some();
    if has(b"\"local_app") || has(b".consul\"") || has(b".consul\\\"") { Dialect::Consul } else { Dialect::Other }
}

/// Who says what is wrong has understood more than who says that it is none of his; and who misses a field in a sound
/// record more than who cannot read it at all.
fn more_telling(one: Rejection, other: Rejection) -> Rejection {
    let rank = |why: Rejection| match why {
        Rejection::Foreign => 0,
        Rejection::Invalid(Invalid::Syntax | Invalid::Encoding) => 1,
        Rejection::Invalid(Invalid::WrongType | Invalid::MissingField) => 2,
        _ => 3,
    };
    if rank(other) > rank(one) { other } else { one }
}
