//! What an entry of Envoy's access log means, in whatever form it comes: text, JSON or protobuf.

mod activity;
mod gateway;
mod names;
#[cfg(test)]
mod tests;

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    fold,
    identity::Provenance,
    time::{Span, Timestamp},
};

use self::activity::activity_of;
use self::gateway::Seat;
pub use self::names::host_and_port;
use self::names::{cluster_host, first_san, instance_of, is_unmatched, server_name_host, service_of_host, workload_of};
use super::{clip, time::rfc3339};
use crate::source::{Invalid, Rejection};

/// One entry, in Envoy's words. An empty text is absent, `-` too.
#[derive(Debug, Clone, Copy, Default)]
pub struct AccessEntry<'a> {
    /// When the request or connection began.
    pub start: Timestamp,
    /// Its duration so far.
    pub duration: Option<Span>,
    /// `%ACCESS_LOG_TYPE%`.
    pub access_log_type: &'a str,
    /// `:method`.
    pub method: &'a str,
    /// `:path`, query and all.
    pub path: &'a str,
    /// `%PROTOCOL%`.
    pub protocol: &'a str,
    /// `:authority`.
    pub authority: &'a str,
    /// `x-request-id`.
    pub request_id: &'a str,
    /// `%STREAM_ID%`.
    pub stream_id: &'a str,
    /// HTTP status, 0 where none was sent.
    pub status: Option<u16>,
    /// gRPC status.
    pub grpc_status: Option<u16>,
    /// `%RESPONSE_FLAGS%`.
    pub response_flags: &'a str,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub response_code_details: &'a str,
    /// `%CONNECTION_TERMINATION_DETAILS%`.
    pub connection_termination_details: &'a str,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`, or else that of the downstream.
    pub transport_failure_reason: &'a str,
    /// Bytes from the downstream.
    pub bytes_received: Option<u64>,
    /// Bytes to the downstream.
    pub bytes_sent: Option<u64>,
    /// Server name that the downstream asked for.
    pub requested_server_name: &'a str,
    /// Cluster the call went to.
    pub upstream_cluster: &'a str,
    /// `address:port` the call went to.
    pub upstream_host: &'a str,
    /// `address:port` it was sent from.
    pub upstream_local_address: &'a str,
    /// `address:port` it was received at.
    pub downstream_local_address: &'a str,
    /// `address:port` of the caller. Of a request it is what `x-forwarded-for` says, where there is such a header: the
    /// caller's own words, which name nobody's instance.
    pub downstream_remote_address: &'a str,
    /// `address:port` of the other end of the connection, which is what a policy of Envoy's is matched with.
    pub downstream_direct_remote_address: &'a str,
    /// Whether `x-forwarded-for` had a say in `downstream_remote_address`.
    pub forwarded: Forwarded,
    /// URI SANs of the downstream's certificate, as verified by this proxy.
    pub downstream_peer_uri_san: &'a str,
    /// URI SANs of this proxy's certificate towards the downstream.
    pub downstream_local_uri_san: &'a str,
    /// URI SANs of the upstream's certificate, as verified by this proxy.
    pub upstream_peer_uri_san: &'a str,
    /// URI SANs of this proxy's certificate towards the upstream.
    pub upstream_local_uri_san: &'a str,
    /// Serial of the downstream's certificate.
    pub downstream_peer_serial: &'a str,
    /// Begin of its validity, RFC 3339.
    pub downstream_peer_cert_v_start: &'a str,
    /// End of its validity, RFC 3339.
    pub downstream_peer_cert_v_end: &'a str,
    /// TLS version of the downstream connection.
    pub downstream_tls_version: &'a str,
    /// JA3 fingerprint of the downstream.
    pub ja3: &'a str,
    /// JA4 fingerprint of the downstream.
    pub ja4: &'a str,
    /// `node.id` of the proxy.
    pub node_id: &'a str,
    /// Policy name of an RBAC denial, where the form has it apart from the details.
    pub policy: &'a str,
    /// Policy name under which Qualm's RBAC filter has marked the call, where the form has it.
    pub mark: &'a str,
    /// On which side of the call the proxy stands, where the form has another way of saying it than Istio's names.
    pub direction: Direction,
    /// The pod that wrote the entry, where the envelope knows.
    pub pod: &'a str,
}

/// The side of a call on which its proxy stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Direction {
    /// As the clusters' names and the certificates tell.
    #[default]
    Unsaid,
    /// Before the called.
    Inbound,
    /// Behind the caller.
    Outbound,
}

/// What an entry says of the header `x-forwarded-for`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Forwarded {
    /// It has no field for it.
    #[default]
    Unsaid,
    /// There was none: the remote address is the direct one.
    Nothing,
    /// There was one, or may have been.
    Possibly,
}

impl Forwarded {
    /// Of the field's value; an empty one and `-` are no header, and no address could be read from such a header.
    pub fn of(header: &str) -> Self {
        if matches!(header, "" | "-") { Self::Nothing } else { Self::Possibly }
    }
}

/// What Envoy puts before the name of the RBAC policy that denied.
const RBAC_DENIAL: &str = "rbac_access_denied_matched_policy[";
/// What the names of a waypoint's clusters begin with: `inbound-vip|8000|http|orders.shop.svc.cluster.local`.
const WAYPOINT_CLUSTER: &str = "inbound-vip|";
/// Letters and digits in a row from which on they may be a token.
const LEAST_TOKEN: usize = 16;
/// What all names of our policies begin with.
const OUR_POLICIES: &str = "qualm-";
/// What those begin with by which a rate is limited.
const OUR_LIMITS: &str = "qualm-throttle/";
/// What Envoy says of a call that was one too many.
const RATE_LIMITED: &str = "local_rate_limited";

impl<'a> AccessEntry<'a> {
    /// The event of a call. `operation` is where the folded operation is written.
    ///
    /// An entry of the begin or the middle of a stream that does not say yet where the call goes is [`Rejection::Part`]:
    /// the entry of its end has the totals.
    pub fn draft<'b>(&self, operation: &'b mut String) -> Result<EventDraft<'b>, Rejection>
    where
        'a: 'b,
    {
        let activity = activity_of(self.access_log_type).ok_or(Rejection::Part)?;
        let kind = self.kind();
        operation.clear();
        if kind == Kind::Request {
            fold::operation(self.method, self.path, operation);
        }
        let seat = self.seat();
        if activity.goes_on() && !self.is_on_its_way(seat) {
            return Err(Rejection::Part);
        }
        let outcome = if activity.goes_on() { Outcome::Unknown } else { self.outcome(kind) };
        Ok(EventDraft {
            start: self.start,
            report: self.start + self.duration.unwrap_or_default(),
            kind,
            activity,
            reporter: self.reporter(seat),
            reporter_id: self.reporter_id(seat),
            record_id: clip(first_present([self.request_id, self.stream_id])),
            decision_id: self.own_action(),
            source: self.source(seat),
            destination: self.destination(seat),
            hostname: self.hostname(),
            operation,
            status: self.status.filter(|_| kind == Kind::Request && !activity.goes_on()),
            grpc_status: self.grpc_status,
            outcome,
            denial_reason: if outcome == Outcome::Success { "" } else { self.reason() },
            bytes_in: self.bytes_received,
            bytes_out: self.bytes_sent,
            duration_ns: self.duration.map(|duration| duration.0).filter(|_| !activity.goes_on()),
            tls_version: clip(self.downstream_tls_version),
            ja3: clip(self.ja3),
            ja4: clip(self.ja4),
            credential: clip(self.downstream_peer_serial),
            not_before: optional_time(self.downstream_peer_cert_v_start)?,
            not_after: optional_time(self.downstream_peer_cert_v_end)?,
            auth_method: if self.downstream_peer_uri_san.is_empty() || seat == Seat::Outbound { "" } else { "mtls" },
            ..EventDraft::default()
        })
    }

    /// Whether an entry from before the end says already between whom the stream is.
    fn is_on_its_way(&self, seat: Seat) -> bool {
        !self.upstream_cluster.is_empty() && (seat == Seat::Inbound || !self.upstream_host.is_empty())
    }

    fn kind(&self) -> Kind {
        if self.method.is_empty() && (self.path.is_empty() || self.access_log_type.starts_with("Tcp")) {
            return Kind::Connection;
        }
        Kind::Request
    }

    fn source(&self, seat: Seat) -> Party<'a> {
        match seat {
            Seat::Gateway => self.source_of_gateway(),
            Seat::Outbound => self.source_of_outbound(),
            Seat::Inbound => self.source_of_inbound(),
        }
    }

    fn destination(&self, seat: Seat) -> Party<'a> {
        match seat {
            Seat::Gateway => self.destination_of_gateway(),
            Seat::Outbound => self.destination_of_outbound(),
            Seat::Inbound => self.destination_of_inbound(),
        }
    }

    /// The report of the caller's proxy rather than of the called's.
    fn is_outbound(&self) -> bool {
        if self.direction != Direction::Unsaid {
            return self.direction == Direction::Outbound;
        }
        let inbound = self.upstream_cluster.starts_with("inbound|") || self.is_waypoint();
        if inbound || !self.downstream_peer_uri_san.is_empty() {
            return false;
        }
        self.upstream_cluster.starts_with("outbound|")
            || is_unmatched(self.upstream_cluster)
            || !self.upstream_peer_uri_san.is_empty()
    }

    fn reporter(&self, seat: Seat) -> Reporter {
        match seat {
            Seat::Gateway => Reporter::Gateway,
            _ if self.is_waypoint() => Reporter::Waypoint,
            Seat::Outbound => Reporter::Source,
            Seat::Inbound => Reporter::Destination,
        }
    }

    /// A waypoint, by its node id or by the clusters that no other proxy of Istio's has.
    fn is_waypoint(&self) -> bool {
        self.node_id.starts_with("waypoint~") || self.upstream_cluster.starts_with(WAYPOINT_CLUSTER)
    }

    fn reporter_id(&self, seat: Seat) -> &'a str {
        let own = if seat == Seat::Outbound { self.upstream_local_uri_san } else { self.downstream_local_uri_san };
        clip(first_present([self.node_id, own]))
    }

    /// The other end of the connection, if the entry says which it is. A denial is narrowed to this address, so
    /// nothing that a caller can choose may come here.
    fn direct_address(&self) -> &'a str {
        let is_direct = match self.forwarded {
            Forwarded::Nothing => true,
            Forwarded::Possibly => false,
            Forwarded::Unsaid => {
                self.kind() == Kind::Connection && self.protocol.is_empty() && self.status.unwrap_or(0) == 0
            }
        };
        let remote = if is_direct { self.downstream_remote_address } else { "" };
        first_present([self.downstream_direct_remote_address, remote])
    }

    /// The caller by its address, whoever says so: good for a bare name.
    fn caller_address(&self) -> &'a str {
        first_present([self.downstream_direct_remote_address, self.downstream_remote_address])
    }

    /// The caller, as the called's proxy verified it, or else by its address.
    fn source_of_inbound(&self) -> Party<'a> {
        let (ip, port) = host_and_port(self.direct_address());
        let san = first_san(self.downstream_peer_uri_san);
        let (principal, provenance) = if san.is_empty() {
            (host_and_port(self.caller_address()).0, Provenance::Name)
        } else {
            (san, Provenance::Certificate)
        };
        Party { principal, provenance, ip, port, ..Party::default() }
    }

    fn destination_of_inbound(&self) -> Party<'a> {
        if self.is_waypoint() {
            return self.destination_of_waypoint();
        }
        let (ip, port) = host_and_port(self.downstream_local_address);
        let san = first_san(self.downstream_local_uri_san);
        let (principal, provenance) = if san.is_empty() {
            let names = [self.hostname(), cluster_host(self.upstream_cluster), ip];
            (service_of_host(first_present(names)), Provenance::Name)
        } else {
            (san, Provenance::Certificate)
        };
        Party { principal, provenance, ip, port, instance: instance_of(self.node_id), ..Party::default() }
    }

    /// A waypoint's own certificate is not the called's: that one, where it is reported, is the upstream's. The
    /// cluster names the service; the authority is what the caller says.
    fn destination_of_waypoint(&self) -> Party<'a> {
        let (ip, port) = host_and_port(first_present([self.upstream_host, self.downstream_local_address]));
        let san = first_san(self.upstream_peer_uri_san);
        let (principal, provenance) = if san.is_empty() {
            let names = [cluster_host(self.upstream_cluster), self.hostname(), ip];
            (service_of_host(first_present(names)), Provenance::Name)
        } else {
            (san, Provenance::Certificate)
        };
        Party { principal, provenance, ip, port, ..Party::default() }
    }

    /// The caller, as its own proxy names itself: no more than a name until the other side confirms it.
    fn source_of_outbound(&self) -> Party<'a> {
        let addresses = [self.upstream_local_address, self.direct_address()];
        let (ip, port) = host_and_port(first_present(addresses));
        let san = first_san(first_present([self.upstream_local_uri_san, self.downstream_local_uri_san]));
        let principal = first_present([san, workload_of(self.node_id), host_and_port(self.caller_address()).0]);
        Party { principal, ip, port, instance: instance_of(self.node_id), ..Party::default() }
    }

    fn destination_of_outbound(&self) -> Party<'a> {
        if let Some(beyond) = self.beyond_egress() {
            return beyond;
        }
        // What no service of the mesh matches goes, or does not go, to the address that was called.
        let called = if is_unmatched(self.upstream_cluster) { self.downstream_local_address } else { "" };
        let (ip, port) = host_and_port(first_present([self.upstream_host, called]));
        let san = first_san(self.upstream_peer_uri_san);
        let (principal, provenance) = if san.is_empty() {
            let names = [cluster_host(self.upstream_cluster), self.hostname(), ip];
            (service_of_host(first_present(names)), Provenance::Name)
        } else {
            (san, Provenance::Certificate)
        };
        Party { principal, provenance, ip, port, ..Party::default() }
    }

    fn hostname(&self) -> &'a str {
        if self.authority.is_empty() {
            return clip(server_name_host(self.requested_server_name));
        }
        clip(host_and_port(self.authority).0)
    }

    fn outcome(&self, kind: Kind) -> Outcome {
        let denied = [self.response_code_details, self.connection_termination_details];
        let refused = denied.iter().any(|details| details.starts_with("rbac_access_denied"));
        if refused || self.response_flags.split(',').any(|flag| flag == "UAEX") {
            return Outcome::Refused;
        }
        if kind == Kind::Request {
            return self.status.map_or(Outcome::Unknown, |status| Outcome::of_http(status, self.grpc_status));
        }
        let failed = !self.response_flags.is_empty() || !self.transport_failure_reason.is_empty();
        if failed { Outcome::Failure } else { Outcome::Success }
    }

    fn reason(&self) -> &'a str {
        let details = if self.response_code_details == "via_upstream" { "" } else { self.response_code_details };
        let reason = first_present([
            details,
            self.connection_termination_details,
            self.transport_failure_reason,
            self.response_flags,
        ]);
        // What stands in braces is about this one call.
        clip(before_token(reason.split('{').next().unwrap_or_default()))
    }

    /// The decision behind a denial by one of our own policies, `qualm-deny/<decision>`, or behind a refusal of one call
    /// too many, `qualm-throttle/<decision>`.
    fn own_action(&self) -> &'a str {
        if self.response_code_details == RATE_LIMITED
            && let Some(decision) = self.mark.strip_prefix(OUR_LIMITS)
        {
            return clip(decision);
        }
        let named = |details: &'a str| details.strip_prefix(RBAC_DENIAL)?.split(']').next();
        let policy = named(self.response_code_details)
            .or_else(|| named(self.connection_termination_details))
            .unwrap_or(self.policy);
        if !policy.starts_with(OUR_POLICIES) {
            return "";
        }
        clip(policy.split_once('/').map_or(policy, |(_, decision)| if decision.is_empty() { policy } else { decision }))
    }
}

fn optional_time(text: &str) -> Result<Option<Timestamp>, Invalid> {
    if text.is_empty() { Ok(None) } else { rfc3339(text).map(Some) }
}

/// The text up to what may be a token. Envoy's words and the names of policies are of small letters; a filter may have put
/// anything behind them.
fn before_token(text: &str) -> &str {
    let is_token = |run: &str| {
        run.len() >= LEAST_TOKEN
            && run.bytes().any(|byte| byte.is_ascii_digit())
            && run.bytes().any(|byte| byte.is_ascii_uppercase())
    };
    let token = text.split(|c: char| !c.is_ascii_alphanumeric()).find(|run| is_token(run));
    token.and_then(|token| text.split(token).next()).unwrap_or(text)
}

fn first_present<const N: usize>(texts: [&str; N]) -> &str {
    texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}
