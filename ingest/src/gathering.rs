//! A batch in the making: records are parsed as they are read.

use qualm_model::event::{EventBuilder, Position, Positions};

use crate::{
    parse::{Origin, Parser},
    source::{Batch, Loss, Rejected, Rejection},
};

/// Gathers what records become, in the order of their positions.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    builder: EventBuilder,
    rejected: Vec<Rejected>,
    positions: Positions,
    /// The partition of the latest records and its next offset: noted with the others when another one's turn comes.
    latest: Option<((u16, i32), i64)>,
    records: usize,
    lost: Vec<Loss>,
}

impl Gathering {
    pub(crate) fn records(&self) -> usize {
        self.records
    }

    /// Parses one record; the reason where it becomes no event.
    #[inline]
    pub(crate) fn record(
        &mut self,
        parser: &mut Parser,
        record: &[u8],
        position: Position,
        origin: &Origin<'_>,
    ) -> Option<Rejection> {
        let outcome = parser.parse_from(origin, record, position, &mut self.builder);
        self.rejected.extend(parser.refused().iter().map(|&why| Rejected { position, why }));
        self.lose(position, parser.lost());
        match outcome {
            Ok(()) => {
                self.advance(position);
                None
            }
            Err(why) => {
                self.reject(position, why);
                Some(why)
            }
        }
    }

    /// Notes that `records` are missing before the one at `position`.
    pub(crate) fn lose(&mut self, position: Position, records: u64) {
        if records > 0 {
            self.lost.push(Loss { position, records });
        }
    }

    pub(crate) fn reject(&mut self, position: Position, why: Rejection) {
        self.rejected.push(Rejected { position, why });
        self.advance(position);
    }

    fn advance(&mut self, position: Position) {
        self.records += 1;
        let key = (position.source, position.partition);
        if let Some((before, next)) = self.latest.filter(|(before, _)| *before != key) {
            self.positions.insert(before, next);
        }
        self.latest = Some((key, position.offset + 1));
    }

    /// What was gathered; what follows starts afresh.
    pub(crate) fn finish(&mut self, lag: Option<u64>) -> Batch {
        self.records = 0;
        self.positions.extend(self.latest.take());
        Batch {
            events: self.builder.finish(),
            rejected: std::mem::take(&mut self.rejected),
            positions: std::mem::take(&mut self.positions),
            lag,
            lost: std::mem::take(&mut self.lost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::Format;

    #[test]
    fn what_a_reporter_says_it_lost_is_told_with_its_place_and_once() {
        let mut parser = Parser::for_format(Format::Hubble, None).expect("needs no mapping");
        let mut gathering = Gathering::default();
        let position = Position { source: 3, partition: 1, offset: 7 };
        let lost = br#"{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"12","cpu":5}}"#;
        assert_eq!(gathering.record(&mut parser, lost, position, &Origin::default()), Some(Rejection::Foreign));
        let other = Position { offset: 8, ..position };
        assert_eq!(gathering.record(&mut parser, b"diagnostics", other, &Origin::default()), Some(Rejection::Foreign));
        assert_eq!(gathering.finish(None).lost, [Loss { position, records: 12 }]);
        assert_eq!(gathering.finish(None).lost, []);
    }
}
