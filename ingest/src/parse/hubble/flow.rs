//! A flow, as far as it is read; names are those of Cilium's `flow.proto`.

use std::borrow::Cow;

use serde::Deserialize;

use crate::parse::number::Whole;

/// A text, unescaped where it must be.
pub(super) type Text<'a> = Cow<'a, str>;

#[derive(Debug, Deserialize)]
pub(super) struct Line<'a> {
    #[serde(borrow)]
    pub flow: Option<Flow<'a>>,
    #[serde(borrow)]
    pub lost_events: Option<LostEvents<'a>>,
    #[serde(borrow)]
    pub node_name: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LostEvents<'a> {
    #[serde(borrow)]
    pub num_events_lost: Option<Whole<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Flow<'a> {
    #[serde(borrow)]
    pub time: Option<Text<'a>>,
    #[serde(borrow)]
    pub uuid: Option<Text<'a>>,
    #[serde(borrow)]
    pub verdict: Option<Text<'a>>,
    #[serde(borrow)]
    pub drop_reason_desc: Option<Text<'a>>,
    #[serde(borrow)]
    pub auth_type: Option<Text<'a>>,
    #[serde(borrow, rename = "IP")]
    pub ip: Option<Addresses<'a>>,
    pub l4: Option<Layer4>,
    #[serde(borrow)]
    pub source: Option<Endpoint<'a>>,
    #[serde(borrow)]
    pub destination: Option<Endpoint<'a>>,
    #[serde(borrow)]
    pub node_name: Option<Text<'a>>,
    #[serde(borrow)]
    pub destination_names: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    pub destination_service: Option<Service<'a>>,
    #[serde(borrow)]
    pub l7: Option<Layer7<'a>>,
    is_reply: Option<bool>,
    reply: Option<bool>,
    pub event_type: Option<EventType>,
    #[serde(borrow)]
    pub traffic_direction: Option<Text<'a>>,
    #[serde(borrow)]
    pub egress_denied_by: Option<Vec<Policy<'a>>>,
    #[serde(borrow)]
    pub ingress_denied_by: Option<Vec<Policy<'a>>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Addresses<'a> {
    #[serde(borrow)]
    pub source: Option<Text<'a>>,
    #[serde(borrow)]
    pub destination: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Layer4 {
    #[serde(rename = "TCP")]
    tcp: Option<Ports>,
    #[serde(rename = "UDP")]
    udp: Option<Ports>,
    #[serde(rename = "SCTP")]
    sctp: Option<Ports>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Ports {
    source_port: Option<u16>,
    destination_port: Option<u16>,
    flags: Option<Flags>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Flags {
    #[serde(rename = "SYN")]
    syn: Option<bool>,
    #[serde(rename = "ACK")]
    ack: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Endpoint<'a> {
    #[serde(borrow)]
    pub cluster_name: Option<Text<'a>>,
    #[serde(borrow)]
    pub namespace: Option<Text<'a>>,
    #[serde(borrow)]
    pub labels: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    pub pod_name: Option<Text<'a>>,
    #[serde(borrow)]
    pub workloads: Option<Vec<Workload<'a>>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Workload<'a> {
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Service<'a> {
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Policy<'a> {
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct EventType {
    #[serde(rename = "type")]
    pub kind: Option<i64>,
    /// 0 is not written out.
    pub sub_type: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Layer7<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    pub http: Option<Http<'a>>,
    #[serde(borrow)]
    pub dns: Option<Dns<'a>>,
    #[serde(borrow)]
    pub kafka: Option<Kafka<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Http<'a> {
    #[serde(borrow)]
    pub method: Option<Text<'a>>,
    #[serde(borrow)]
    pub url: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Dns<'a> {
    #[serde(borrow)]
    pub qtypes: Option<Vec<Text<'a>>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Kafka<'a> {
    #[serde(borrow)]
    pub api_key: Option<Text<'a>>,
    #[serde(borrow)]
    pub topic: Option<Text<'a>>,
}

impl Flow<'_> {
    /// Older agents write `reply` alone; a response of layer 7 is one too.
    pub(super) fn is_reply(&self) -> bool {
        let is_response = self.l7.as_ref().is_some_and(|layer| layer.kind.as_deref() == Some("RESPONSE"));
        self.is_reply.or(self.reply).unwrap_or(false) || is_response
    }

    pub(super) fn is_egress(&self) -> bool {
        self.traffic_direction.as_deref() == Some("EGRESS")
    }
}

impl Layer4 {
    /// Of the caller and of the called; 0 where there are none.
    pub(super) fn ports(&self) -> (u16, u16) {
        let ports = self.tcp.or(self.udp).or(self.sctp);
        ports
            .map_or((0, 0), |ports| (ports.source_port.unwrap_or_default(), ports.destination_port.unwrap_or_default()))
    }

    /// Whether a packet begins a connection. A request of layer 7 is no packet.
    pub(super) fn is_first_packet(&self, is_request: bool) -> bool {
        let Some(flags) = self.tcp.and_then(|tcp| tcp.flags).filter(|_| !is_request) else { return true };
        flags.syn == Some(true) && flags.ack != Some(true)
    }
}

impl Endpoint<'_> {
    /// What it is where it is no workload: `reserved:host`, `reserved:world`.
    pub(super) fn reserved(&self) -> Option<&str> {
        self.labels.iter().flatten().map(AsRef::as_ref).find(|label: &&str| label.starts_with("reserved:"))
    }

    /// Outside the cluster.
    pub(super) fn is_world(&self) -> bool {
        self.reserved().is_some_and(|label| label.starts_with("reserved:world"))
    }
}
