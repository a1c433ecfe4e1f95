//! A batch in the making: records are parsed as they are read.

use qualm_model::event::{EventBuilder, Position, Positions};

use crate::{
    parse::{Format, Origin, Parser},
    source::{Batch, Loss, ReadAs, Rejected, Rejection, Unvouched},
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
    unvouched: Vec<Unvouched>,
    read: Vec<ReadAs>,
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
        if parser.unvouched() > 0 {
            self.unvouched.push(Unvouched { position, container: parser.stranger() });
        }
        match outcome {
            Ok(()) => {
                self.note_format(position.source, parser.read_as());
                self.advance(position);
                None
            }
            Err(why) => {
                self.reject(position, why);
                Some(why)
            }
        }
    }

    #[inline]
    fn note_format(&mut self, source: u16, format: Format) {
        match self.read.iter_mut().find(|read| (read.source, read.format) == (source, format)) {
            Some(read) => read.records += 1,
            None => self.read.push(ReadAs { source, format, records: 1 }),
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
            unvouched: std::mem::take(&mut self.unvouched),
            read: std::mem::take(&mut self.read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_proxys_line_that_an_application_wrote_is_told_with_its_place_and_counted() {
        let mut parser = Parser::for_format(Format::LinkerdJson, None).expect("needs no mapping");
        let mut gathering = Gathering::default();
        let identified = |line: &&str| line.contains("serviceaccount.identity");
        let line = Format::LinkerdJson.sample().lines().find(identified).expect("a client with a certificate");
        for (offset, container) in (0..).zip(["linkerd-proxy", "shop", "linkerd-proxy"]) {
            let position = Position { source: 3, partition: 1, offset };
            let origin = Origin { container, ..Origin::default() };
            assert_eq!(gathering.record(&mut parser, line.as_bytes(), position, &origin), None);
        }
        let batch = gathering.finish(None);
        let position = Position { source: 3, partition: 1, offset: 1 };
        assert_eq!(batch.unvouched, [Unvouched { position, container: "shop".into() }]);
        let registry = prometheus::Registry::new();
        let counters = crate::counters::IngestCounters::register(&registry).expect("new names").of("mesh");
        counters.count(&batch);
        assert_eq!((counters.unvouched.get(), batch.events.len()), (1, 3));
        assert_eq!(gathering.finish(None).unvouched, []);
    }
}
