//! One message: one record, or one that has to wait.

use std::{collections::BTreeMap, time::Instant};

use qualm_model::{event::Position, time::Timestamp};
use rdkafka::{Message, message::Headers};

use super::{Topic, dead_letter::DeadLetters};
use crate::{
    envelope,
    gathering::Gathering,
    parse::Origin,
    registry::{self, Reading, Rows},
    source::{Invalid, Rejection},
};

/// Longer headers name no origin.
const MAX_HEADER_BYTES: usize = 256;
/// A gap in the offsets that is no greater is of markers, which are no records.
const MARKERS: u64 = 16;

/// What takes messages, borrowed of the reading.
pub(super) struct Taking<'a> {
    pub(super) topics: &'a mut [Topic],
    pub(super) gathering: &'a mut Gathering,
    pub(super) expected: &'a mut BTreeMap<(u16, i32), i64>,
    pub(super) dead_letters: &'a mut DeadLetters,
    pub(super) rows: &'a mut Rows,
    pub(super) now: Instant,
}

/// What has become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was read, or refused and counted.
    Done,
    /// Its schema is not there yet: it is to be taken again.
    Waiting,
}

impl Taking<'_> {
    pub(super) fn take(&mut self, message: &impl Message) -> Taken {
        let topic = match &mut *self.topics {
            // Nothing else is subscribed to.
            [only] => only,
            several => {
                let name = message.topic();
                let Some(topic) = several.iter_mut().find(|topic| topic.name == name) else { return Taken::Done };
                topic
            }
        };
        let position = Position { source: topic.source, partition: message.partition(), offset: message.offset() };
        let next = self.expected.entry((position.source, position.partition)).or_insert(position.offset);
        if position.offset > *next {
            let missing = (position.offset - *next).unsigned_abs();
            topic.counters.gaps.inc_by(missing);
            // Transactions leave a gap of one or two at each end.
            if missing > MARKERS {
                self.gathering.lose(position, missing);
            }
        }
        *next = position.offset + 1;
        let Some(record) = message.payload() else {
            self.gathering.reject(position, Invalid::Syntax.into());
            return Taken::Done;
        };
        let row = match self.rows.read(record, self.now) {
            Reading::Bare => record,
            Reading::Row(row) => row,
            Reading::Waiting => return Taken::Waiting,
            Reading::Refused(why) => {
                refuse(self.gathering, self.dead_letters, topic, (record, position), why);
                return Taken::Done;
            }
        };
        let origin = origin(message.headers());
        let stored = message.timestamp().to_millis().map(|millis| Timestamp(millis.saturating_mul(1_000_000)));
        topic.parser.store(stored);
        if let Some(why) = self.gathering.record(&mut topic.parser, row, position, &origin) {
            self.dead_letters.send(topic, row, position, why);
        }
        Taken::Done
    }
}

/// A record behind a schema id that cannot be read. What is in it is not shown: nobody knows what of it is a secret.
#[cold]
fn refuse(
    gathering: &mut Gathering,
    dead_letters: &mut DeadLetters,
    topic: &mut Topic,
    (record, position): (&[u8], Position),
    why: Invalid,
) {
    if why == Invalid::NoRegistry && topic.told_of_registry.is_none() {
        topic.told_of_registry = Some(());
        let id = registry::schema_id(record);
        tracing::warn!(
            topic = topic.name,
            id,
            "kafka: records have a schema id in front; name the schema registry: [kafka.registry] url = \"https://...\""
        );
    }
    if why == Invalid::RegistryUnavailable {
        // It may have been anybody's call.
        gathering.lose(position, 1);
    }
    gathering.reject(position, why.into());
    let shown = registry::schema_id(record).map_or_else(String::new, |id| format!("schema id {id}"));
    dead_letters.send_shown(topic, (&shown, record.len()), position, Rejection::Invalid(why));
}

/// What the headers of a message say of where it was written.
pub fn origin(headers: Option<&impl Headers>) -> Origin<'_> {
    let mut origin = Origin::default();
    for header in headers.into_iter().flat_map(Headers::iter) {
        let value = header.value.and_then(|value| str::from_utf8(value).ok());
        if let Some(value) = value.filter(|value| value.len() <= MAX_HEADER_BYTES) {
            envelope::header(header.key, value, &mut origin);
        }
    }
    origin
}

#[cfg(test)]
mod tests {
    use rdkafka::message::{Header, OwnedHeaders};

    use super::*;

    #[test]
    fn headers_name_the_origin_and_nothing_else() {
        let insert = |headers: OwnedHeaders, key, value: &[u8]| headers.insert(Header { key, value: Some(value) });
        let long = [b'x'; MAX_HEADER_BYTES + 1];
        let named: [(&str, &[u8]); 7] = [
            ("cluster", b"north"),
            ("k8s.namespace.name", b"shop"),
            ("pod", b"orders-1"),
            ("pod_ip", b"\xff"),
            ("node", &long),
            ("authorization", b"Bearer hunter2"),
            ("pod", b"another"),
        ];
        let headers = named.into_iter().fold(OwnedHeaders::new(), |headers, (key, value)| insert(headers, key, value));
        let expected = Origin { cluster: "north", namespace: "shop", pod: "orders-1", ..Origin::default() };
        assert_eq!(origin(Some(&headers)), expected);
        assert_eq!(origin(None::<&OwnedHeaders>), Origin::default());
    }
}
