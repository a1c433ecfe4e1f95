//! The event: one call, connection or authentication, as every stage of Qualm knows it.
//!
//! Events travel in an [`EventBatch`], an Arrow `RecordBatch` whose column names mirror OCSF and whose strings
//! are dictionary-encoded. A parser fills an [`EventDraft`]; the [`EventBuilder`] turns drafts into a batch.
//!
//! What follows from a principal alone (trust domain, namespace, service) is held once per *distinct* principal:
//! those columns share the principal's keys and have dictionaries of their own.

mod activity;
mod batch;
pub mod builder;
mod filter;
mod schema;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use activity::Activity;
pub use batch::{Event, EventBatch, Names, PartyColumns, PartyView};
pub use builder::EventBuilder;
pub use filter::Filter;
pub use schema::{SCHEMA_VERSION, schema};

use crate::{identity::Provenance, time::Timestamp};

/// What kind of record an event was read from; the values are OCSF class ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u16)]
pub enum Kind {
    /// OCSF 4002, HTTP Activity.
    #[default]
    Request = 4002,
    /// OCSF 4001, Network Activity.
    Connection = 4001,
    /// OCSF 3002, Authentication.
    Authentication = 3002,
}

/// Who wrote the record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Reporter {
    /// The proxy (or server) that was called.
    #[default]
    Destination,
    /// The proxy of the caller.
    Source,
    /// An ingress or egress gateway.
    Gateway,
    /// An Istio waypoint.
    Waypoint,
    /// The called's node's ztunnel. What the caller's node reports is [`Reporter::Source`].
    Ztunnel,
    /// Who issues credentials: Vault, Keycloak, SPIRE.
    Issuer,
}

impl Reporter {
    /// Whether it reports every call to its workload: the called's own proxy or server, or its node's ztunnel. Then
    /// what the callers' sides report only confirms it. Gateways and waypoints see those calls that pass them.
    pub const fn is_of_destination(self) -> bool {
        matches!(self, Self::Destination | Self::Ztunnel)
    }
}

/// How the call ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Outcome {
    /// The record does not say.
    #[default]
    Unknown,
    /// It was served.
    Success,
    /// It failed: 4xx other than a refusal, 5xx, a reset, a failed handshake.
    Failure,
    /// Policy stopped it: 401, 403, gRPC 7 or 16, an RBAC denial, a failed login.
    Refused,
}

impl Outcome {
    /// Whether what was asked for was not given.
    pub const fn is_error(self) -> bool {
        matches!(self, Self::Failure | Self::Refused)
    }

    /// The outcome of an HTTP exchange. 200 with gRPC status 7 (permission denied) or 16 (unauthenticated) is a
    /// refusal; status 0 means that no response was sent.
    pub const fn of_http(status: u16, grpc_status: Option<u16>) -> Self {
        match (status, grpc_status) {
            (401 | 403 | 407, _) | (_, Some(7 | 16)) => Self::Refused,
            (0 | 400.., _) => Self::Failure,
            (_, Some(0) | None) => Self::Success,
            (_, Some(_)) => Self::Failure,
        }
    }
}

/// Where a record stood in its input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Index of the topic or file in the configuration.
    pub source: u16,
    /// Kafka partition; 0 for files. Below 0 for what a peer has pushed and cannot be asked for again: one for each of so
    /// many peers.
    pub partition: i32,
    /// Kafka offset, or the 0-based row of the record over all inputs.
    pub offset: i64,
}

impl Position {
    /// Whether a peer has pushed it: what it has not sent yet will not come in order with what others have.
    pub const fn is_pushed(&self) -> bool {
        self.partition < 0
    }
}

/// Per (source, partition) the offset of the *next* record to read.
pub type Positions = BTreeMap<(u16, i32), i64>;

/// One end of a call. An empty text is absent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Party<'a> {
    /// What authenticated: a SPIFFE ID, a subject, a key id, or at worst a bare name or address.
    pub principal: &'a str,
    /// The cluster, where the deployment has several.
    pub cluster: &'a str,
    /// Version label of the workload.
    pub version: &'a str,
    /// Pod or other instance name.
    pub instance: &'a str,
    /// IP address, without port.
    pub ip: &'a str,
    /// TCP or UDP port, 0 where unknown.
    pub port: u16,
    /// How the principal became known.
    pub provenance: Provenance,
}

/// One event as a parser understands it, borrowing from the line. An empty text is absent.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventDraft<'a> {
    /// When the call began.
    pub start: Timestamp,
    /// When it could first be known: start + duration for logs written at the end.
    pub report: Timestamp,
    /// Request, connection or authentication.
    pub kind: Kind,
    /// Which part of it the record tells of.
    pub activity: Activity,
    /// Which side wrote the record.
    pub reporter: Reporter,
    /// Identity of who wrote it: the proxy's own SPIFFE ID or node id.
    pub reporter_id: &'a str,
    /// Request id or similar, unique within its source.
    pub record_id: &'a str,
    /// Set where the record shows an action of Qualm: the decision id from the policy name.
    pub decision_id: &'a str,
    /// The caller.
    pub source: Party<'a>,
    /// The called.
    pub destination: Party<'a>,
    /// Authority, SNI or host name under which the destination was called.
    pub hostname: &'a str,
    /// Method and folded path, or another name for what was asked.
    pub operation: &'a str,
    /// HTTP status.
    pub status: Option<u16>,
    /// gRPC status.
    pub grpc_status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was refused or failed, in the reporter's words.
    pub denial_reason: &'a str,
    /// Bytes from caller to called.
    pub bytes_in: Option<u64>,
    /// Bytes from called to caller.
    pub bytes_out: Option<u64>,
    /// Duration in nanoseconds.
    pub duration_ns: Option<i64>,
    /// TLS version.
    pub tls_version: &'a str,
    /// JA3 fingerprint of the caller's TLS stack.
    pub ja3: &'a str,
    /// JA4 fingerprint of the caller's TLS stack.
    pub ja4: &'a str,
    /// Serial of the certificate, accessor or id of the token.
    pub credential: &'a str,
    /// Begin of the credential's validity.
    pub not_before: Option<Timestamp>,
    /// End of the credential's validity.
    pub not_after: Option<Timestamp>,
    /// How the caller authenticated: `mtls`, `approle`, `password`.
    pub auth_method: &'a str,
    /// The credential that was given out by this: its id, or, of a certificate whose serial the issuer does not log,
    /// [`certificate_of`].
    pub issued: &'a str,
    /// The credential that was taken back by this.
    pub revoked: &'a str,
    /// Where the record stood.
    pub position: Position,
}

/// What an X.509 certificate is known by where its serial is not logged: whose it is, and the second in which it ends.
pub fn certificate_of(spiffe_id: &str, not_after: Timestamp) -> String {
    format!("{spiffe_id} {}", not_after.0.div_euclid(crate::time::Span::SECOND.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_refusal_inside_http_200_is_a_refusal() {
        assert_eq!(Outcome::of_http(200, Some(7)), Outcome::Refused);
        assert_eq!(Outcome::of_http(200, Some(16)), Outcome::Refused);
        assert_eq!(Outcome::of_http(200, Some(0)), Outcome::Success);
        assert_eq!(Outcome::of_http(200, Some(13)), Outcome::Failure);
    }

    #[test]
    fn a_call_without_a_response_has_failed() {
        assert_eq!(Outcome::of_http(0, None), Outcome::Failure);
        assert_eq!(Outcome::of_http(403, None), Outcome::Refused);
        assert_eq!(Outcome::of_http(302, None), Outcome::Success);
    }
}
