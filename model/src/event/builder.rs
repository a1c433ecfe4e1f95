//! From drafts to a batch.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
        UInt8Array, UInt16Array, UInt64Array,
    },
    buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer},
    datatypes::Int32Type,
};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

use super::{EventBatch, EventDraft, Party, schema};
use crate::{identity::Hierarchy, time::Timestamp};

const ABSENT: i32 = -1;

/// A dictionary-encoded text column under construction.
#[derive(Debug, Default)]
struct Dictionary {
    index: HashTable<i32>,
    text: String,
    ends: Vec<i32>,
    keys: Vec<i32>,
    last: i32,
    nulls: usize,
}

impl Dictionary {
    fn get(&self, key: i32) -> &str {
        slice(&self.text, &self.ends, key)
    }

    fn push(&mut self, value: &str) {
        if value.is_empty() {
            self.nulls += 1;
            self.keys.push(ABSENT);
            return;
        }
        // Log lines come in runs: the value of the line before is often this one's.
        if !self.ends.is_empty() && self.get(self.last) == value {
            self.keys.push(self.last);
            return;
        }
        let hasher = FixedState::default();
        let hash = hasher.hash_one(value);
        let found = self.index.find(hash, |&key| self.get(key) == value).copied();
        let key = found.unwrap_or_else(|| self.insert(hash, value));
        self.last = key;
        self.keys.push(key);
    }

    fn insert(&mut self, hash: u64, value: &str) -> i32 {
        let key = i32::try_from(self.ends.len()).expect("a batch has fewer than 2^31 rows");
        self.text.push_str(value);
        self.ends.push(i32::try_from(self.text.len()).expect("a batch holds less than 2 GiB of text"));
        let (text, ends) = (&self.text, &self.ends);
        self.index.insert_unique(hash, key, |&key| FixedState::default().hash_one(slice(text, ends, key)));
        key
    }

    fn take_keys(&mut self) -> Int32Array {
        let keys = std::mem::take(&mut self.keys);
        let nulls = (self.nulls > 0).then(|| NullBuffer::from_iter(keys.iter().map(|&key| key != ABSENT)));
        // Arrow wants keys in range even where null.
        let keys = if self.nulls > 0 { keys.into_iter().map(|key| key.max(0)).collect() } else { keys };
        self.nulls = 0;
        Int32Array::new(ScalarBuffer::from(keys), nulls)
    }

    fn take_values(&mut self) -> StringArray {
        let text = std::mem::take(&mut self.text);
        let offsets = std::iter::once(0).chain(self.ends.drain(..)).collect::<Vec<_>>();
        self.index.clear();
        self.last = 0;
        StringArray::new(OffsetBuffer::new(offsets.into()), Buffer::from(text.into_bytes()), None)
    }

    /// All-null columns need one value for their keys to point at.
    fn finish(&mut self) -> (Int32Array, StringArray) {
        let keys = self.take_keys();
        let values = if self.ends.is_empty() { StringArray::from(vec![""]) } else { self.take_values() };
        (keys, values)
    }
}

fn slice<'a>(text: &'a str, ends: &[i32], key: i32) -> &'a str {
    let start = if key == 0 { 0 } else { ends[key as usize - 1] };
    &text[start as usize..ends[key as usize] as usize]
}

fn column(keys: Int32Array, values: StringArray) -> ArrayRef {
    Arc::new(DictionaryArray::<Int32Type>::try_new(keys, Arc::new(values)).expect("keys come from the same dictionary"))
}

#[derive(Debug, Default)]
struct PartyBuilder {
    principal: Dictionary,
    cluster: Dictionary,
    version: Dictionary,
    instance: Dictionary,
    ip: Dictionary,
    port: Vec<u16>,
    provenance: Vec<u8>,
}

impl PartyBuilder {
    fn push(&mut self, party: &Party<'_>) {
        self.principal.push(party.principal);
        self.cluster.push(party.cluster);
        self.version.push(party.version);
        self.instance.push(party.instance);
        self.ip.push(party.ip);
        self.port.push(party.port);
        self.provenance.push(party.provenance as u8);
    }

    fn finish(&mut self, columns: &mut Vec<ArrayRef>) {
        let (keys, principals) = self.principal.finish();
        let part = |part: fn(Hierarchy<'_>) -> Option<&str>| -> StringArray {
            principals.iter().map(|principal| part(Hierarchy::of(principal.unwrap_or_default()))).collect()
        };
        let (trust_domain, namespace, service) =
            (part(|place| place.trust_domain), part(|place| place.namespace), part(|place| Some(place.service)));
        columns.push(column(keys.clone(), principals));
        for values in [trust_domain, namespace, service] {
            columns.push(column(keys.clone(), values));
        }
        for text in [&mut self.cluster, &mut self.version, &mut self.instance, &mut self.ip] {
            let (keys, values) = text.finish();
            columns.push(column(keys, values));
        }
        columns.push(Arc::new(UInt16Array::from(std::mem::take(&mut self.port))));
        columns.push(Arc::new(UInt8Array::from(std::mem::take(&mut self.provenance))));
    }
}

/// Gathers drafts and turns them into an [`EventBatch`]. Dictionaries live for one batch.
#[derive(Debug, Default)]
pub struct EventBuilder {
    start: Vec<i64>,
    report: Vec<i64>,
    kind: Vec<u16>,
    activity: Vec<u8>,
    reporter: Vec<u8>,
    reporter_id: Dictionary,
    record_id: Vec<u8>,
    record_ends: Vec<i32>,
    decision_id: Dictionary,
    source: PartyBuilder,
    destination: PartyBuilder,
    hostname: Dictionary,
    operation: Dictionary,
    status: Vec<Option<u16>>,
    grpc_status: Vec<Option<u16>>,
    outcome: Vec<u8>,
    denial_reason: Dictionary,
    bytes_in: Vec<Option<u64>>,
    bytes_out: Vec<Option<u64>>,
    duration: Vec<Option<i64>>,
    tls_version: Dictionary,
    ja3: Dictionary,
    ja4: Dictionary,
    credential: Dictionary,
    not_before: Vec<Option<i64>>,
    not_after: Vec<Option<i64>>,
    auth_method: Dictionary,
    issued: Dictionary,
    revoked: Dictionary,
    position_source: Vec<u16>,
    partition: Vec<i32>,
    offset: Vec<i64>,
}

impl EventBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows gathered so far.
    pub fn len(&self) -> usize {
        self.start.len()
    }

    /// Whether nothing was gathered since the last [`finish`](Self::finish).
    pub fn is_empty(&self) -> bool {
        self.start.is_empty()
    }

    /// Adds one event.
    pub fn push(&mut self, draft: &EventDraft<'_>) {
        self.start.push(draft.start.0);
        self.report.push(draft.report.0);
        self.kind.push(draft.kind as u16);
        self.activity.push(draft.activity as u8);
        self.reporter.push(draft.reporter as u8);
        self.reporter_id.push(draft.reporter_id);
        self.record_id.extend_from_slice(draft.record_id.as_bytes());
        self.record_ends.push(i32::try_from(self.record_id.len()).expect("a batch holds less than 2 GiB of text"));
        self.decision_id.push(draft.decision_id);
        self.source.push(&draft.source);
        self.destination.push(&draft.destination);
        self.hostname.push(draft.hostname);
        self.operation.push(draft.operation);
        self.status.push(draft.status);
        self.grpc_status.push(draft.grpc_status);
        self.outcome.push(draft.outcome as u8);
        self.denial_reason.push(draft.denial_reason);
        self.bytes_in.push(draft.bytes_in);
        self.bytes_out.push(draft.bytes_out);
        self.duration.push(draft.duration_ns);
        self.tls_version.push(draft.tls_version);
        self.ja3.push(draft.ja3);
        self.ja4.push(draft.ja4);
        self.credential.push(draft.credential);
        self.not_before.push(draft.not_before.map(|time| time.0));
        self.not_after.push(draft.not_after.map(|time| time.0));
        self.auth_method.push(draft.auth_method);
        self.issued.push(draft.issued);
        self.revoked.push(draft.revoked);
        self.position_source.push(draft.position.source);
        self.partition.push(draft.position.partition);
        self.offset.push(draft.position.offset);
    }

    /// Turns what was gathered into a batch, in the order it was pushed, and empties the builder.
    pub fn finish(&mut self) -> EventBatch {
        let time = |values: Vec<i64>| Arc::new(TimestampNanosecondArray::from(values).with_timezone("UTC")) as ArrayRef;
        let maybe_time = |values: Vec<Option<i64>>| {
            Arc::new(TimestampNanosecondArray::from(values).with_timezone("UTC")) as ArrayRef
        };
        let text = |dictionary: &mut Dictionary| {
            let (keys, values) = dictionary.finish();
            column(keys, values)
        };
        let mut columns: Vec<ArrayRef> = vec![
            time(std::mem::take(&mut self.start)),
            time(std::mem::take(&mut self.report)),
            Arc::new(UInt16Array::from(std::mem::take(&mut self.kind))),
            Arc::new(UInt8Array::from(std::mem::take(&mut self.activity))),
            Arc::new(UInt8Array::from(std::mem::take(&mut self.reporter))),
            text(&mut self.reporter_id),
            self.finish_record_ids(),
            text(&mut self.decision_id),
        ];
        self.source.finish(&mut columns);
        self.destination.finish(&mut columns);
        columns.extend([
            text(&mut self.hostname),
            text(&mut self.operation),
            Arc::new(UInt16Array::from(std::mem::take(&mut self.status))),
            Arc::new(UInt16Array::from(std::mem::take(&mut self.grpc_status))),
            Arc::new(UInt8Array::from(std::mem::take(&mut self.outcome))),
            text(&mut self.denial_reason),
            Arc::new(UInt64Array::from(std::mem::take(&mut self.bytes_in))),
            Arc::new(UInt64Array::from(std::mem::take(&mut self.bytes_out))),
            Arc::new(Int64Array::from(std::mem::take(&mut self.duration))),
            text(&mut self.tls_version),
            text(&mut self.ja3),
            text(&mut self.ja4),
            text(&mut self.credential),
            maybe_time(std::mem::take(&mut self.not_before)),
            maybe_time(std::mem::take(&mut self.not_after)),
            text(&mut self.auth_method),
            text(&mut self.issued),
            text(&mut self.revoked),
            Arc::new(UInt16Array::from(std::mem::take(&mut self.position_source))),
            Arc::new(Int32Array::from(std::mem::take(&mut self.partition))),
            Arc::new(Int64Array::from(std::mem::take(&mut self.offset))),
        ]);
        let batch = RecordBatch::try_new(schema(), columns).expect("every push fills every column");
        EventBatch::try_from(batch).expect("the builder follows the schema")
    }

    fn finish_record_ids(&mut self) -> ArrayRef {
        let ends = std::mem::take(&mut self.record_ends);
        let present = NullBuffer::from_iter(
            std::iter::once(0).chain(ends.iter().copied()).zip(&ends).map(|(start, &end)| end > start),
        );
        let offsets = std::iter::once(0).chain(ends).collect::<Vec<_>>();
        let bytes = Buffer::from(std::mem::take(&mut self.record_id));
        Arc::new(StringArray::new(OffsetBuffer::new(offsets.into()), bytes, Some(present)))
    }
}

impl<'a> Extend<&'a EventDraft<'a>> for EventBuilder {
    fn extend<T: IntoIterator<Item = &'a EventDraft<'a>>>(&mut self, drafts: T) {
        for draft in drafts {
            self.push(draft);
        }
    }
}

/// A draft that has only a time and two names, for tests and simple inputs.
pub fn plain<'a>(time: Timestamp, source: &'a str, destination: &'a str) -> EventDraft<'a> {
    EventDraft {
        start: time,
        report: time,
        source: Party { principal: source, ..Party::default() },
        destination: Party { principal: destination, ..Party::default() },
        ..EventDraft::default()
    }
}
