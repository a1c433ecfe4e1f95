//! The shape of the record: names and order of its fields.

use std::net::IpAddr;

use qualm_model::level::Level;
use serde::Serialize;

use crate::{familiar::Familiar, notify::finding::Effect};

/// One alert as an OCSF object.
#[derive(Debug, Serialize)]
pub struct DetectionFinding {
    pub(super) activity_id: u8,
    pub(super) activity_name: &'static str,
    pub(super) category_uid: u8,
    pub(super) category_name: &'static str,
    pub(super) class_uid: u16,
    pub(super) class_name: &'static str,
    pub(super) type_uid: u32,
    pub(super) type_name: String,
    pub(super) severity_id: u8,
    pub(super) severity: &'static str,
    pub(super) status_id: u8,
    pub(super) status: &'static str,
    pub(super) risk_level_id: u8,
    pub(super) risk_level: &'static str,
    pub(super) is_alert: bool,
    pub(super) time: i64,
    pub(super) start_time: i64,
    pub(super) end_time: i64,
    pub(super) message: String,
    pub(super) action_id: u8,
    pub(super) action: &'static str,
    pub(super) disposition_id: u8,
    pub(super) disposition: &'static str,
    pub(super) policy: Policy,
    pub(super) metadata: Metadata,
    pub(super) finding_info: FindingInfo,
    pub(super) anomaly_analyses: Vec<AnomalyAnalysis>,
    pub(super) evidences: Vec<Evidence>,
    pub(super) resources: Vec<Resource>,
    pub(super) unmapped: Unmapped,
}

#[derive(Debug, Serialize)]
pub(super) struct Policy {
    pub(super) name: &'static str,
    pub(super) uid: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Metadata {
    pub(super) version: &'static str,
    pub(super) product: Product,
    pub(super) profiles: [&'static str; 1],
    pub(super) uid: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Product {
    pub(super) name: &'static str,
    pub(super) vendor_name: &'static str,
    pub(super) version: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct FindingInfo {
    pub(super) uid: String,
    pub(super) title: String,
    pub(super) types: [&'static str; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) analytic: Option<Analytic>,
    pub(super) related_analytics: Vec<Analytic>,
    pub(super) attacks: Vec<Attack>,
    pub(super) modified_time: i64,
    pub(super) first_seen_time: i64,
    pub(super) last_seen_time: i64,
}

#[derive(Debug, Serialize)]
pub(super) struct Analytic {
    pub(super) type_id: u8,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) uid: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Attack {
    pub(super) tactic: Named,
    pub(super) technique: Named,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sub_technique: Option<Named>,
    pub(super) version: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Named {
    pub(super) uid: &'static str,
    pub(super) name: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct AnomalyAnalysis {
    pub(super) analysis_targets: Vec<Target>,
    pub(super) anomalies: Vec<Observed>,
    pub(super) baselines: Vec<Observed>,
}

#[derive(Debug, Serialize)]
pub(super) struct Target {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
}

/// An OCSF `anomaly` or `baseline`, which have the same shape.
#[derive(Debug, Serialize)]
pub(super) struct Observed {
    pub(super) observation_parameter: String,
    pub(super) observation_type: &'static str,
    pub(super) observations: Vec<Observation>,
}

#[derive(Debug, Serialize)]
pub(super) struct Observation {
    pub(super) value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timespan: Option<Timespan>,
}

#[derive(Debug, Serialize)]
pub(super) struct Timespan {
    pub(super) type_id: u8,
    pub(super) start_time: i64,
    pub(super) end_time: i64,
}

#[derive(Debug, Serialize)]
pub(super) struct Evidence {
    pub(super) src_endpoint: Endpoint,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dst_endpoint: Option<Endpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connection_info: Option<ConnectionInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) api: Option<Api>,
    pub(super) actor: Actor,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Endpoint {
    pub(super) svc_name: String,
    pub(super) uid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) instance_uid: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct ConnectionInfo {
    pub(super) direction_id: u8,
    pub(super) direction: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Api {
    pub(super) operation: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Actor {
    pub(super) user: User,
}

#[derive(Debug, Serialize)]
pub(super) struct User {
    pub(super) uid: String,
    pub(super) name: String,
    pub(super) type_id: u8,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Resource {
    pub(super) uid: String,
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Unmapped {
    pub(super) level: Level,
    pub(super) previous_level: Level,
    pub(super) effect: Effect,
    pub(super) decision: String,
    pub(super) evidence_bits: f64,
    pub(super) threshold_bits: f64,
    pub(super) rate_per_day: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lease_until: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<String>,
    pub(super) instances: Vec<String>,
    pub(super) instances_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) workload: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) co_owners: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) incident: Option<Incident>,
    pub(super) reasons: Vec<Bits>,
    pub(super) reasons_count: usize,
    /// The records that carried the evidence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) carried_by: Vec<Records>,
    pub(super) next: Vec<String>,
}

/// Several identities whose episodes have one cause.
#[derive(Debug, Serialize)]
pub(super) struct Incident {
    pub(super) cause: String,
    pub(super) members: Vec<InIncident>,
}

#[derive(Debug, Serialize)]
pub(super) struct InIncident {
    pub(super) identity: String,
    pub(super) level: Level,
    pub(super) evidence_bits: f64,
    pub(super) since: i64,
    pub(super) decision: String,
    pub(super) observed: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Bits {
    pub(super) detector: String,
    pub(super) bits: f64,
    pub(super) n: f64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) usual: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) familiar: Option<Familiar>,
}

/// A run of records: those of the identity, to this destination where one is named, from the first to the last.
#[derive(Debug, Serialize)]
pub(super) struct Records {
    pub(super) input: String,
    pub(super) partition: i32,
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) events: u32,
    pub(super) start_time: i64,
    pub(super) end_time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detector: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) destination: Option<String>,
    pub(super) bits: f64,
}
