//! Finds out, record by record, which format an input has.
//!
//! Whatever understood the record before is tried first, so that an input of one format costs no more than to name it.
//! An input may mix formats, and change them after an upgrade of whoever writes it.

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
            let mut grammar = Grammar::of(format, None).ok()?;
            match &mut grammar {
                // Each would understand the other's lines.
                Grammar::IstioJson(reader) => reader.leave_consuls(),
                Grammar::Consul(reader) => reader.leave_others(),
                _ => {}
            }
            Some(Candidate { format, grammar, events: 0 })
        };
        let named = Format::ALL.iter().filter(|format| format.is_named());
        Self { candidates: named.filter_map(candidate).collect(), latest: 0, strange: 0 }
    }
}

impl Auto {
    /// Reads one record in the first format that understands it.
    pub fn parse(&mut self, record: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        let Err(mut why) = self.candidates[self.latest].read(record, row) else { return Ok(()) };
        if why == Rejection::Part {
            return Err(why);
        }
        self.strange += 1;
        let all = self.strange <= ALL_TRIED || self.strange.is_multiple_of(TRIED_AGAIN);
        for (place, candidate) in self.candidates.iter_mut().enumerate() {
            if place == self.latest || !(all || candidate.events > 0) {
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
        let latest = &mut self.candidates[self.latest];
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
    #[inline]
    fn read(&mut self, record: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        let outcome = self.grammar.parse(record, row);
        self.events += u64::from(matches!(outcome, Ok(()) | Err(Rejection::Part)));
        outcome
    }
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

#[cfg(test)]
mod tests {
    use qualm_model::event::{EventBuilder, Position, Reporter};

    use super::*;

    const LINE: &str = r#"{"authority":"orders.shop:8080","downstream_peer_uri_san":"spiffe://mesh.test/ns/shop/sa/cart","downstream_local_uri_san":"spiffe://mesh.test/ns/shop/sa/orders","downstream_remote_address":"10.0.0.7:32830","duration":2,"method":"GET","path":"/v1/orders","requested_server_name":"outbound_.8080_._.orders.shop.svc.cluster.local","response_code":200,"start_time":"2026-11-22T02:02:24.122Z","upstream_cluster":"inbound|8080||","user_agent":"curl"}"#;

    fn found(line: &str) -> (Format, Reporter) {
        let (mut auto, mut builder) = (Auto::default(), EventBuilder::new());
        auto.parse(line, &mut Row::new(&mut builder, Position::default(), None)).expect("an event");
        (auto.latest(), builder.finish().event(0).reporter())
    }

    #[test]
    fn nothing_that_a_caller_chooses_makes_its_call_one_of_consuls() {
        for (from, to) in [
            ("orders.shop:8080", "vault.service.consul"),
            ("outbound_.8080_._.orders.shop.svc.cluster.local", "x.default.dc1.internal.1.consul"),
            ("/v1/orders", "/v1/local_app.consul"),
            ("curl", "local_app"),
        ] {
            let line = LINE.replace(from, to);
            assert_ne!(line, LINE);
            assert_eq!(found(&line), (Format::IstioJson, Reporter::Destination), "{to}");
        }
    }

    #[test]
    fn consuls_proxies_are_known_by_the_cluster_and_where_there_is_none_by_the_server_name() {
        let server =
            LINE.replace("outbound_.8080_._.orders.shop.svc.cluster.local", "orders.default.dc1.internal.1.consul");
        for line in [
            LINE.replace("inbound|8080||", "local_app"),
            LINE.replace("inbound|8080||", "local_app_8080"),
            LINE.replace("inbound|8080||", "orders.default.dc1.internal.1.consul"),
            server.replace("inbound|8080||", "-"),
        ] {
            assert_eq!(found(&line).0, Format::Consul, "{line}");
        }
    }
}
