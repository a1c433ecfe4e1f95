//! Reading a batch: typed columns.

mod view;

use arrow::{
    array::{
        Array, AsArray, DictionaryArray, Int32Array, Int64Array, PrimitiveArray, RecordBatch, StringArray, UInt8Array,
        UInt16Array, UInt64Array,
    },
    datatypes::{ArrowPrimitiveType, Int32Type, TimestampNanosecondType},
};

pub use self::view::{Event, PartyView};
use super::schema;

/// A dictionary-encoded text column: small keys, and the distinct texts behind them.
#[derive(Debug, Clone)]
pub struct Names {
    keys: Int32Array,
    values: StringArray,
}

impl Names {
    /// The key of a row, `None` where absent. Keys mean something within this batch only.
    #[inline]
    pub fn key(&self, row: usize) -> Option<usize> {
        // Most columns of most batches are empty.
        (!self.values.is_empty() && self.keys.is_valid(row)).then(|| self.keys.value(row) as usize)
    }

    /// The text behind a key.
    #[inline]
    pub fn text(&self, key: usize) -> &str {
        self.values.value(key)
    }

    /// The text of a row, empty where absent.
    #[inline]
    pub fn get(&self, row: usize) -> &str {
        match self.key(row) {
            Some(key) if self.values.is_valid(key) => self.text(key),
            _ => "",
        }
    }

    /// How many distinct texts the batch has here.
    #[inline]
    pub fn distinct(&self) -> usize {
        self.values.len()
    }
}

/// The columns of one end of the calls.
#[derive(Debug, Clone)]
pub struct PartyColumns {
    /// Principals.
    pub principal: Names,
    /// Trust domains, by the principal's keys.
    pub trust_domain: Names,
    /// Namespaces, by the principal's keys.
    pub namespace: Names,
    /// Services, by the principal's keys.
    pub service: Names,
    /// Clusters.
    pub cluster: Names,
    /// Versions.
    pub version: Names,
    /// Instances.
    pub instance: Names,
    /// IP addresses.
    pub ip: Names,
    port: UInt16Array,
    provenance: UInt8Array,
}

/// A `RecordBatch` that is known to follow the event schema, its columns at hand by type.
#[derive(Debug, Clone)]
pub struct EventBatch {
    batch: RecordBatch,
    start: PrimitiveArray<TimestampNanosecondType>,
    report: PrimitiveArray<TimestampNanosecondType>,
    kind: UInt16Array,
    activity: UInt8Array,
    reporter: UInt8Array,
    /// Who wrote the records.
    pub reporter_id: Names,
    record_id: StringArray,
    /// Decision ids of Qualm's own actions.
    pub decision_id: Names,
    /// The callers.
    pub source: PartyColumns,
    /// The called.
    pub destination: PartyColumns,
    /// Authorities, SNIs, host names.
    pub hostname: Names,
    /// Operations.
    pub operation: Names,
    status: UInt16Array,
    grpc_status: UInt16Array,
    outcome: UInt8Array,
    /// Why calls were refused.
    pub denial_reason: Names,
    bytes_in: UInt64Array,
    bytes_out: UInt64Array,
    duration: Int64Array,
    /// TLS versions.
    pub tls_version: Names,
    /// JA3 fingerprints.
    pub ja3: Names,
    /// JA4 fingerprints.
    pub ja4: Names,
    /// Credentials.
    pub credential: Names,
    not_before: PrimitiveArray<TimestampNanosecondType>,
    not_after: PrimitiveArray<TimestampNanosecondType>,
    /// Authentication methods.
    pub auth_method: Names,
    /// Credentials that were given out.
    pub issued: Names,
    /// Credentials that were taken back.
    pub revoked: Names,
    position_source: UInt16Array,
    partition: Int32Array,
    offset: Int64Array,
}

/// A record batch that does not follow the event schema.
#[derive(Debug, thiserror::Error)]
#[error("the batch has another schema than that of events (version {})", super::SCHEMA_VERSION)]
pub struct InvalidEventBatch;

struct Reader<'a> {
    batch: &'a RecordBatch,
    next: usize,
}

impl Reader<'_> {
    fn names(&mut self) -> Names {
        let dictionary: &DictionaryArray<Int32Type> = self.batch.column(self.advance()).as_dictionary();
        Names { keys: dictionary.keys().clone(), values: dictionary.values().as_string().clone() }
    }

    fn primitive<T: ArrowPrimitiveType>(&mut self) -> PrimitiveArray<T> {
        self.batch.column(self.advance()).as_primitive::<T>().clone()
    }

    fn string(&mut self) -> StringArray {
        self.batch.column(self.advance()).as_string().clone()
    }

    fn party(&mut self) -> PartyColumns {
        PartyColumns {
            principal: self.names(),
            trust_domain: self.names(),
            namespace: self.names(),
            service: self.names(),
            cluster: self.names(),
            version: self.names(),
            instance: self.names(),
            ip: self.names(),
            port: self.primitive(),
            provenance: self.primitive(),
        }
    }

    fn advance(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }
}

impl TryFrom<RecordBatch> for EventBatch {
    type Error = InvalidEventBatch;

    fn try_from(batch: RecordBatch) -> Result<Self, InvalidEventBatch> {
        if batch.schema().fields() != schema().fields() {
            return Err(InvalidEventBatch);
        }
        let mut read = Reader { batch: &batch, next: 0 };
        Ok(Self {
            start: read.primitive(),
            report: read.primitive(),
            kind: read.primitive(),
            activity: read.primitive(),
            reporter: read.primitive(),
            reporter_id: read.names(),
            record_id: read.string(),
            decision_id: read.names(),
            source: read.party(),
            destination: read.party(),
            hostname: read.names(),
            operation: read.names(),
            status: read.primitive(),
            grpc_status: read.primitive(),
            outcome: read.primitive(),
            denial_reason: read.names(),
            bytes_in: read.primitive(),
            bytes_out: read.primitive(),
            duration: read.primitive(),
            tls_version: read.names(),
            ja3: read.names(),
            ja4: read.names(),
            credential: read.names(),
            not_before: read.primitive(),
            not_after: read.primitive(),
            auth_method: read.names(),
            issued: read.names(),
            revoked: read.names(),
            position_source: read.primitive(),
            partition: read.primitive(),
            offset: read.primitive(),
            batch,
        })
    }
}

impl EventBatch {
    /// The Arrow batch itself.
    pub fn as_record_batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// Number of events.
    #[inline]
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Whether there are no events.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The event of a row.
    #[inline]
    pub fn event(&self, row: usize) -> Event<'_> {
        Event { batch: self, row }
    }

    /// All events, in order.
    #[inline]
    pub fn events(&self) -> impl ExactSizeIterator<Item = Event<'_>> + DoubleEndedIterator {
        (0..self.len()).map(|row| self.event(row))
    }
}

#[cfg(test)]
mod tests;
