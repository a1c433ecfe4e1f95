//! One event, and one end of it, as views of a row of a batch.

use arrow::{
    array::{Array, PrimitiveArray},
    datatypes::ArrowPrimitiveType,
};

use super::{EventBatch, PartyColumns};
use crate::{
    event::{Activity, Kind, Outcome, Position, Reporter},
    identity::Provenance,
    time::Timestamp,
};

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

    /// The credential that was given out by this, empty where absent.
    #[inline]
    pub fn issued(self) -> &'a str {
        self.batch.issued.get(self.row)
    }

    /// The credential that was taken back by this, empty where absent.
    #[inline]
    pub fn revoked(self) -> &'a str {
        self.batch.revoked.get(self.row)
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
