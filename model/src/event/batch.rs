//! Reading a batch: typed columns, and one event as a view of a row.

use arrow::{
    array::{
        Array, AsArray, DictionaryArray, Int32Array, Int64Array, PrimitiveArray, RecordBatch, StringArray, UInt8Array,
        UInt16Array, UInt64Array,
    },
    datatypes::{ArrowPrimitiveType, Int32Type, TimestampNanosecondType},
};

use super::{Activity, Kind, Outcome, Position, Reporter, schema};
use crate::{identity::Provenance, time::Timestamp};

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

/// One event: a view of a row of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// The batch it stands in.
    pub batch: &'a EventBatch,
    /// Its row.
    pub row: usize,
}

/// One end of one event.
#[derive(Debug, Clone, Copy)]
pub struct PartyView<'a> {
    columns: &'a PartyColumns,
    row: usize,
}

impl<'a> PartyView<'a> {
    /// The principal, empty where absent.
    #[inline]
    pub fn principal(self) -> &'a str {
        self.columns.principal.get(self.row)
    }

    /// The namespace, empty where absent.
    #[inline]
    pub fn namespace(self) -> &'a str {
        self.columns.namespace.get(self.row)
    }

    /// The service, empty where absent.
    #[inline]
    pub fn service(self) -> &'a str {
        self.columns.service.get(self.row)
    }

    /// The cluster, empty where absent.
    #[inline]
    pub fn cluster(self) -> &'a str {
        self.columns.cluster.get(self.row)
    }

    /// The IP address, empty where absent.
    #[inline]
    pub fn ip(self) -> &'a str {
        self.columns.ip.get(self.row)
    }

    /// The instance (pod), empty where absent.
    #[inline]
    pub fn instance(self) -> &'a str {
        self.columns.instance.get(self.row)
    }

    /// The version, empty where absent.
    #[inline]
    pub fn version(self) -> &'a str {
        self.columns.version.get(self.row)
    }

    /// The port, 0 where unknown.
    #[inline]
    pub fn port(self) -> u16 {
        self.columns.port.value(self.row)
    }

    /// How the principal became known.
    #[inline]
    pub fn provenance(self) -> Provenance {
        Provenance::from_u8(self.columns.provenance.value(self.row))
    }
}

#[inline]
fn optional<T: ArrowPrimitiveType>(column: &PrimitiveArray<T>, row: usize) -> Option<T::Native> {
    column.is_valid(row).then(|| column.value(row))
}

impl<'a> Event<'a> {
    /// When the call began.
    #[inline]
    pub fn start(self) -> Timestamp {
        Timestamp(self.batch.start.value(self.row))
    }

    /// When it was reported; watermarks, windows and clocks follow this time.
    #[inline]
    pub fn report(self) -> Timestamp {
        Timestamp(self.batch.report.value(self.row))
    }

    /// Request, connection or authentication.
    #[inline]
    pub fn kind(self) -> Kind {
        match self.batch.kind.value(self.row) {
            4001 => Kind::Connection,
            3002 => Kind::Authentication,
            _ => Kind::Request,
        }
    }

    /// Which part of the call the record tells of.
    #[inline]
    pub fn activity(self) -> Activity {
        Activity::from_u8(self.batch.activity.value(self.row))
    }

    /// Which side wrote the record.
    #[inline]
    pub fn reporter(self) -> Reporter {
        const ALL: [Reporter; 6] = [
            Reporter::Destination,
            Reporter::Source,
            Reporter::Gateway,
            Reporter::Waypoint,
            Reporter::Ztunnel,
            Reporter::Issuer,
        ];
        ALL.get(usize::from(self.batch.reporter.value(self.row))).copied().unwrap_or_default()
    }

    /// Identity of who wrote the record, empty where unknown.
    #[inline]
    pub fn reporter_id(self) -> &'a str {
        self.batch.reporter_id.get(self.row)
    }

    /// Request id, empty where absent.
    #[inline]
    pub fn record_id(self) -> &'a str {
        if self.batch.record_id.is_valid(self.row) { self.batch.record_id.value(self.row) } else { "" }
    }

    /// Decision id of the action of Qualm that this event shows, empty for all others.
    #[inline]
    pub fn decision_id(self) -> &'a str {
        self.batch.decision_id.get(self.row)
    }

    /// The caller.
    #[inline]
    pub fn source(self) -> PartyView<'a> {
        PartyView { columns: &self.batch.source, row: self.row }
    }

    /// The called.
    #[inline]
    pub fn destination(self) -> PartyView<'a> {
        PartyView { columns: &self.batch.destination, row: self.row }
    }

    /// Authority, SNI or host name, empty where absent.
    #[inline]
    pub fn hostname(self) -> &'a str {
        self.batch.hostname.get(self.row)
    }

    /// What was asked, empty where absent.
    #[inline]
    pub fn operation(self) -> &'a str {
        self.batch.operation.get(self.row)
    }

    /// HTTP status.
    #[inline]
    pub fn status(self) -> Option<u16> {
        optional(&self.batch.status, self.row)
    }

    /// gRPC status.
    #[inline]
    pub fn grpc_status(self) -> Option<u16> {
        optional(&self.batch.grpc_status, self.row)
    }

    /// How it ended.
    #[inline]
    pub fn outcome(self) -> Outcome {
        match self.batch.outcome.value(self.row) {
            1 => Outcome::Success,
            2 => Outcome::Failure,
            3 => Outcome::Refused,
            _ => Outcome::Unknown,
        }
    }

    /// Why it was refused or failed, empty where absent.
    #[inline]
    pub fn denial_reason(self) -> &'a str {
        self.batch.denial_reason.get(self.row)
    }

    /// Bytes from caller to called.
    #[inline]
    pub fn bytes_in(self) -> Option<u64> {
        optional(&self.batch.bytes_in, self.row)
    }

    /// Bytes from called to caller.
    #[inline]
    pub fn bytes_out(self) -> Option<u64> {
        optional(&self.batch.bytes_out, self.row)
    }

    /// Duration in nanoseconds.
    #[inline]
    pub fn duration_ns(self) -> Option<i64> {
        optional(&self.batch.duration, self.row)
    }

    /// JA4, or else JA3 fingerprint of the caller's TLS stack, empty where absent.
    #[inline]
    pub fn fingerprint(self) -> &'a str {
        let ja4 = self.batch.ja4.get(self.row);
        if ja4.is_empty() { self.batch.ja3.get(self.row) } else { ja4 }
    }

    /// TLS version, empty where absent.
    #[inline]
    pub fn tls_version(self) -> &'a str {
        self.batch.tls_version.get(self.row)
    }

    /// Credential id, empty where absent.
    #[inline]
    pub fn credential(self) -> &'a str {
        self.batch.credential.get(self.row)
    }

    /// Begin and end of the credential's validity.
    #[inline]
    pub fn validity(self) -> (Option<Timestamp>, Option<Timestamp>) {
        let at = |column| optional(column, self.row).map(Timestamp);
        (at(&self.batch.not_before), at(&self.batch.not_after))
    }

    /// How the caller authenticated, empty where absent.
    #[inline]
    pub fn auth_method(self) -> &'a str {
        self.batch.auth_method.get(self.row)
    }

    /// Where the record stood.
    #[inline]
    pub fn position(self) -> Position {
        Position {
            source: self.batch.position_source.value(self.row),
            partition: self.batch.partition.value(self.row),
            offset: self.batch.offset.value(self.row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EventBuilder, EventDraft, Party};
    use super::*;

    #[test]
    fn what_went_into_the_builder_comes_out_of_the_batch() {
        let mut builder = EventBuilder::new();
        let cart = Party { principal: "spiffe://mesh.test/ns/shop/sa/cart", ip: "10.0.0.1", ..Party::default() };
        let draft = EventDraft { source: cart, operation: "GET /x", record_id: "r-1", ..EventDraft::default() };
        builder.push(&draft);
        builder.push(&EventDraft { status: Some(403), source: cart, ..EventDraft::default() });
        let batch = builder.finish();
        let (first, second) = (batch.event(0), batch.event(1));
        assert_eq!((first.source().service(), first.source().namespace()), ("cart", "shop"));
        assert_eq!((first.operation(), second.operation()), ("GET /x", ""));
        assert_eq!((first.record_id(), second.record_id()), ("r-1", ""));
        assert_eq!((first.status(), second.status()), (None, Some(403)));
        assert_eq!(batch.source.principal.distinct(), 1);
        assert!(builder.is_empty());
    }

    #[test]
    fn a_builder_can_be_used_again_and_starts_with_empty_dictionaries() {
        let mut builder = EventBuilder::new();
        for name in ["a", "b"] {
            builder
                .push(&EventDraft { source: Party { principal: name, ..Party::default() }, ..EventDraft::default() });
            let batch = builder.finish();
            assert_eq!((batch.len(), batch.event(0).source().principal()), (1, name));
            assert_eq!(batch.source.principal.distinct(), 1);
        }
    }

    #[test]
    fn a_batch_with_another_schema_is_refused() {
        let other = RecordBatch::new_empty(arrow::datatypes::Schema::empty().into());
        assert!(EventBatch::try_from(other).is_err());
    }
}
