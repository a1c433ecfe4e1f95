//! Cilium's Hubble: flows as `hubble observe -o jsonpb` and the exporter of Cilium's agent write them.
//!
//! A flow is one packet at one place of observation. What is a call, so that none counts twice:
//! - TCP: the first packet (`SYN`) alone, UDP and ICMP: every packet; no replies, of any layer. Others are *parts*;
//! - forwarded: where it enters the called's pod (`TO_ENDPOINT`), or where it leaves the cluster: at every other place
//!   it is a part, and so are forwarded policy verdicts, which a trace follows;
//! - dropped by policy: the policy verdict, which names the policy; the drop of the packet is a part;
//! - layer 7: the request. Its response is a reply, so what was served is not known of it.
//!
//! Identities are Cilium's own map from addresses to workloads: [`Provenance::AddressMap`].

mod flow;

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    fold,
    identity::{Provenance, workload_of_pod},
};

use self::flow::{Endpoint, Flow, Line, Policy};
use super::{Row, access::host_and_port, clip, number, time::rfc3339, typed, url::split_url};
use crate::source::{Invalid, Rejection};

/// Types of events: `event_type.type`.
const DROP: i64 = 1;
const TRACE: i64 = 4;
const POLICY_VERDICT: i64 = 5;
/// `event_type.sub_type` of a trace where a packet enters a pod, and where it leaves for the network.
const TO_ENDPOINT: i64 = 0;
const TO_NETWORK: [i64; 2] = [3, 11];
/// What all names of our policies begin with.
const OUR_POLICIES: &str = "qualm-";

/// Reads lines of Hubble's.
#[derive(Debug, Default)]
pub struct Hubble {
    operation: String,
    source: String,
    destination: String,
}

impl Hubble {
    /// Reads one line. A record of lost events is foreign, and what it says was lost is counted.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        let bytes = line.as_bytes();
        if memchr::memmem::find(bytes, b"\"flow\"").is_none() {
            return lost_events(line, row);
        }
        let line: Line<'_> = typed::object(line)?;
        let Some(flow) = &line.flow else { return Err(Rejection::Foreign) };
        if !is_call(flow) {
            return Err(Rejection::Part);
        }
        self.write_names(flow);
        let draft = self.draft(flow, text(line.node_name.as_ref()))?;
        row.push_as_onlooker(draft)
    }

    fn write_names(&mut self, flow: &Flow<'_>) {
        for (out, endpoint) in [(&mut self.source, &flow.source), (&mut self.destination, &flow.destination)] {
            out.clear();
            let Some(endpoint) = endpoint else { continue };
            let workload = endpoint.workloads.iter().flatten().find_map(|workload| workload.name.as_deref());
            let workload = workload.unwrap_or_else(|| workload_of_pod(text(endpoint.pod_name.as_ref())));
            if !workload.is_empty() {
                out.push_str(text(endpoint.namespace.as_ref()));
                out.push_str(if out.is_empty() { "" } else { "/" });
                out.push_str(workload);
            }
        }
        self.operation.clear();
        let Some(layer) = &flow.l7 else { return };
        if let Some(http) = &layer.http {
            let path = split_url(text(http.url.as_ref())).1;
            fold::operation(text(http.method.as_ref()), path, &mut self.operation);
        } else if let Some(kafka) = &layer.kafka {
            for part in ["kafka ", clip(text(kafka.api_key.as_ref())), " "] {
                self.operation.push_str(part);
            }
            fold::append_path(clip(text(kafka.topic.as_ref())), &mut self.operation);
        } else if let Some(dns) = &layer.dns {
            // What was asked for is the caller's words without end; its type is not.
            self.operation.push_str("dns ");
            let types = dns.qtypes.as_deref().unwrap_or_default();
            self.operation.push_str(clip(types.first().map_or("", AsRef::as_ref)));
        }
    }

    fn draft<'a>(&'a self, flow: &'a Flow<'a>, node: &'a str) -> Result<EventDraft<'a>, Rejection> {
        let time = rfc3339(flow.time.as_deref().ok_or(Invalid::MissingField)?)?;
        let addresses = flow.ip.as_ref();
        let (source_port, port) = flow.l4.as_ref().map_or((0, 0), flow::Layer4::ports);
        let end =
            |name: &'a str, endpoint: Option<&'a Endpoint<'a>>, ip: &'a str, port: u16| party(name, endpoint, ip, port);
        let source_ip = addresses.map_or("", |ip| text(ip.source.as_ref()));
        let ip = addresses.map_or("", |ip| text(ip.destination.as_ref()));
        let outcome = outcome_of(flow);
        let is_denied = !matches!(outcome, Outcome::Success | Outcome::Unknown);
        let reason =
            if flow.verdict.as_deref() == Some("AUDIT") { "AUDIT" } else { text(flow.drop_reason_desc.as_ref()) };
        Ok(EventDraft {
            start: time,
            report: time,
            kind: if flow.l7.is_some() { Kind::Request } else { Kind::Connection },
            reporter: if flow.is_egress() { Reporter::Source } else { Reporter::Destination },
            reporter_id: clip(if node.is_empty() { text(flow.node_name.as_ref()) } else { node }),
            record_id: clip(text(flow.uuid.as_ref())),
            decision_id: own_action(flow),
            source: end(&self.source, flow.source.as_ref(), source_ip, source_port),
            destination: end(&self.destination, flow.destination.as_ref(), ip, port),
            hostname: hostname(flow),
            operation: &self.operation,
            outcome,
            denial_reason: if is_denied || reason == "AUDIT" { clip(reason) } else { "" },
            auth_method: match text(flow.auth_type.as_ref()) {
                "SPIRE" => "mtls",
                _ => "",
            },
            ..EventDraft::default()
        })
    }
}

/// `{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"1","cpu":5}}`
fn lost_events(line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
    if memchr::memmem::find(line.as_bytes(), b"\"lost_events\"").is_none() {
        return Err(Rejection::Foreign);
    }
    let line: Line<'_> = typed::object(line)?;
    if let Some(lost) = line.lost_events {
        row.lose(number::whole(lost.num_events_lost.as_ref())?.unwrap_or_default());
    }
    Err(Rejection::Foreign)
}

/// Whether the flow stands for a call, as told above.
fn is_call(flow: &Flow<'_>) -> bool {
    if flow.is_reply() || flow.l4.as_ref().is_some_and(|l4| !l4.is_first_packet(flow.l7.is_some())) {
        return false;
    }
    let (kind, place) = flow.event_type.as_ref().map_or((None, None), |event| (event.kind, event.sub_type));
    let verdict = text(flow.verdict.as_ref());
    match (kind, verdict) {
        (_, "TRANSLATED" | "TRACED") => false,
        (Some(POLICY_VERDICT), "FORWARDED" | "REDIRECTED") => false,
        (Some(DROP), _) => !is_policy(flow),
        // Exports that were thinned out do not say where; then every flow they kept is one.
        (Some(TRACE), _) => match place {
            Some(TO_ENDPOINT) | None => true,
            Some(place) => TO_NETWORK.contains(&place) && flow.destination.as_ref().is_some_and(Endpoint::is_world),
        },
        _ => true,
    }
}

/// Whether a policy dropped it, rather than the network.
fn is_policy(flow: &Flow<'_>) -> bool {
    let reason = text(flow.drop_reason_desc.as_ref());
    reason.starts_with("POLICY_DEN") || reason.starts_with("AUTH_REQUIRED")
}

fn outcome_of(flow: &Flow<'_>) -> Outcome {
    match text(flow.verdict.as_ref()) {
        "DROPPED" if flow.l7.is_some() || is_policy(flow) => Outcome::Refused,
        "DROPPED" | "ERROR" => Outcome::Failure,
        // What a response would have to tell.
        "FORWARDED" | "REDIRECTED" | "AUDIT" if flow.l7.is_some() => Outcome::Unknown,
        "FORWARDED" | "REDIRECTED" | "AUDIT" => Outcome::Success,
        _ => Outcome::Unknown,
    }
}

fn party<'a>(name: &'a str, endpoint: Option<&'a Endpoint<'a>>, ip: &'a str, port: u16) -> Party<'a> {
    let Some(endpoint) = endpoint else { return Party { principal: ip, ip, port, ..Party::default() } };
    let (principal, provenance) = match (name, endpoint.reserved()) {
        ("", None | Some("reserved:world" | "reserved:world-ipv4" | "reserved:world-ipv6" | "reserved:unknown")) => {
            (ip, Provenance::Name)
        }
        ("", Some(reserved)) => (reserved, Provenance::AddressMap),
        (name, _) => (name, Provenance::AddressMap),
    };
    Party {
        principal,
        provenance,
        ip,
        port,
        cluster: clip(text(endpoint.cluster_name.as_ref())),
        instance: clip(text(endpoint.pod_name.as_ref())),
        ..Party::default()
    }
}

/// The host that was asked for, the service, or a name by which the address was looked up.
fn hostname<'a>(flow: &'a Flow<'a>) -> &'a str {
    let http = flow.l7.as_ref().and_then(|layer| layer.http.as_ref());
    let asked = http.map_or("", |http| host_and_port(split_url(text(http.url.as_ref())).0).0);
    let service = flow.destination_service.as_ref().map_or("", |service| text(service.name.as_ref()));
    let names = flow.destination_names.as_deref().unwrap_or_default();
    let looked_up = names.first().map_or("", AsRef::as_ref);
    clip([asked, service, looked_up].into_iter().find(|name| !name.is_empty()).unwrap_or_default())
}

/// The policy of ours that denied.
fn own_action<'a>(flow: &'a Flow<'a>) -> &'a str {
    let denied: [&'a Option<Vec<Policy<'a>>>; 2] = [&flow.egress_denied_by, &flow.ingress_denied_by];
    let names = denied.into_iter().flatten().flatten().map(|policy| text(policy.name.as_ref()));
    clip(names.into_iter().find(|name| name.starts_with(OUR_POLICIES)).unwrap_or_default())
}

fn text<'a>(field: Option<&'a flow::Text<'_>>) -> &'a str {
    field.map(AsRef::as_ref).unwrap_or_default()
}

#[cfg(test)]
mod tests;
