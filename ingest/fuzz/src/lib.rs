//! What both targets hold: whatever is read, every event of a record stands at its position, has a caller, and is no
//! older in its report than in its start; and a record that is refused leaves nothing behind.

use qualm_ingest::{
    envelope::Envelope,
    parse::{Format, Parser},
};
use qualm_model::event::{EventBuilder, Position};

/// The first byte of an input says which format its lines are read as. A mapping is for its author to say.
pub fn format_of(first: u8) -> Format {
    let named: Vec<Format> = Format::ALL.iter().copied().filter(|format| *format != Format::Mapped).collect();
    named[usize::from(first) % named.len()]
}

/// Reads the records of an input, one after the other, with one parser.
pub fn read(input: &[u8], envelope: Envelope) {
    let Some((&first, records)) = input.split_first() else { return };
    let parser = Parser::for_format(format_of(first), None).expect("needs no mapping");
    let mut parser = parser.with_envelope(envelope);
    let mut builder = EventBuilder::new();
    let mut events = 0;
    for (offset, record) in (0..).zip(records.split(|&byte| byte == b'\n')) {
        let position = Position { source: 1, partition: 2, offset };
        let outcome = parser.parse(record, position, &mut builder);
        let batch = builder.finish();
        assert!(outcome.is_ok() || batch.events().next().is_none(), "a refused record left events");
        for event in batch.events() {
            assert_eq!(event.position(), position);
            assert!(!event.source().principal().is_empty(), "an event of nobody");
            assert!(event.report() >= event.start(), "a report before its call");
            events += 1;
        }
    }
    std::hint::black_box(events);
}
