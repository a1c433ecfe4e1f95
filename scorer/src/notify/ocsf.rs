//! The record a SIEM reads: OCSF 1.8.0, class 2004 *Detection Finding*, profile *security control*.
//!
//! Names and numbers follow <https://schema.ocsf.io/1.8.0/classes/detection_finding>. What OCSF has no place for
//! (bits, level, lease) stands under `unmapped`. Times are milliseconds since 1970.

mod captions;
mod record;

use qualm_model::{identity::Hierarchy, time::Timestamp};

pub use self::record::DetectionFinding;
use self::{
    captions::{action, activity, disposition, observation_type, risk, severity, status},
    record::{
        Actor, Analytic, AnomalyAnalysis, Api, Attack, Bits, ConnectionInfo, Endpoint, Evidence, FindingInfo,
        InIncident, Incident, Metadata, Named, Observation, Observed, Policy, Product, Records, Resource, Target,
        Timespan, Unmapped, User,
    },
};
use super::{
    attack::{ATTACK_VERSION, Technique},
    finding::{Activity, Effect, Finding, Identity, Member, Reason},
    message::{cause, message, plain, title},
};
use crate::carriers::Carrier;

/// So many reasons and instances are told in one record; how many there were is said.
const TOLD: usize = 16;

impl From<&Finding> for DetectionFinding {
    fn from(finding: &Finding) -> Self {
        let (activity_id, activity_name) = activity(finding.activity);
        let (severity_id, severity) = severity(finding);
        let (status_id, status) = status(finding.activity);
        let (risk_level_id, risk_level) = risk(finding.level);
        let (action_id, action) = action(finding);
        let (disposition_id, disposition) = disposition(finding);
        Self {
            activity_id,
            activity_name,
            category_uid: 2,
            category_name: "Findings",
            class_uid: 2004,
            class_name: "Detection Finding",
            type_uid: 200_400 + u32::from(activity_id),
            type_name: format!("Detection Finding: {activity_name}"),
            severity_id,
            severity,
            status_id,
            status,
            risk_level_id,
            risk_level,
            is_alert: finding.activity != Activity::Close && finding.effect != Effect::Historic,
            time: millis(finding.decided),
            start_time: millis(finding.first_seen),
            end_time: millis(finding.last_seen),
            message: message(finding),
            action_id,
            action,
            disposition_id,
            disposition,
            policy: Policy { name: "qualm", uid: plain(&finding.decision) },
            metadata: metadata(finding),
            finding_info: finding_info(finding),
            anomaly_analyses: vec![anomaly_analysis(finding)],
            evidences: evidences(finding),
            resources: resources(finding),
            unmapped: unmapped(finding),
        }
    }
}

fn metadata(finding: &Finding) -> Metadata {
    Metadata {
        version: "1.8.0",
        product: Product { name: "Qualm", vendor_name: "Qualm", version: env!("CARGO_PKG_VERSION") },
        profiles: ["security_control"],
        uid: format!("{}/{}/{}", plain(&finding.uid), finding.activity.as_str(), finding.decided.0),
    }
}

fn finding_info(finding: &Finding) -> FindingInfo {
    let mut analytics = told(finding).map(|reason| Analytic {
        type_id: 2,
        kind: "Behavioral",
        name: plain(&reason.detector),
        uid: plain(&reason.detector),
    });
    let mut techniques: Vec<Technique> = Vec::new();
    for technique in told(finding).filter_map(|reason| Technique::of(&reason.detector)) {
        if !techniques.contains(&technique) {
            techniques.push(technique);
        }
    }
    FindingInfo {
        uid: plain(&finding.uid),
        title: title(finding),
        types: ["Behavioral anomaly"],
        analytic: analytics.next(),
        related_analytics: analytics.collect(),
        attacks: techniques.into_iter().map(attack).collect(),
        modified_time: millis(finding.decided),
        first_seen_time: millis(finding.first_seen),
        last_seen_time: millis(finding.last_seen),
    }
}

fn attack(technique: Technique) -> Attack {
    let named = |(uid, name)| Named { uid, name };
    Attack {
        tactic: named(technique.tactic),
        technique: Named { uid: technique.uid, name: technique.name },
        sub_technique: technique.sub.map(named),
        version: ATTACK_VERSION,
    }
}

fn anomaly_analysis(finding: &Finding) -> AnomalyAnalysis {
    let timespan = Timespan { type_id: 9, start_time: millis(finding.first_seen), end_time: millis(finding.last_seen) };
    let mut span = Some(timespan);
    let observed = |reason: &Reason, observation| Observed {
        observation_parameter: parameter(reason),
        observation_type: observation_type(&reason.detector),
        observations: vec![observation],
    };
    let mut anomalies: Vec<_> = told(finding)
        .map(|reason| {
            observed(reason, Observation { value: plain(&reason.observed), count: None, timespan: span.take() })
        })
        .collect();
    if anomalies.is_empty() {
        let value = format!("{:.1} bits of evidence", finding.evidence_bits);
        anomalies.push(Observed {
            observation_parameter: "evidence".to_owned(),
            observation_type: "Deviation Analysis",
            observations: vec![Observation { value, count: None, timespan: span.take() }],
        });
    }
    let baselines = told(finding)
        .filter(|reason| !reason.expected.is_empty())
        .map(|reason| {
            let count = (reason.n.is_finite() && reason.n >= 0.0).then_some(reason.n as u64);
            observed(reason, Observation { value: plain(&reason.expected), count, timespan: None })
        })
        .collect();
    let target = Target { name: plain(&finding.identity.principal), kind: "Workload Identity" };
    AnomalyAnalysis { analysis_targets: vec![target], anomalies, baselines }
}

fn evidences(finding: &Finding) -> Vec<Evidence> {
    let bare = Reason { destination: None, operation: None, ..no_reason() };
    let reasons: Vec<&Reason> = if finding.reasons.is_empty() { vec![&bare] } else { told(finding).collect() };
    let mut evidences: Vec<Evidence> = Vec::new();
    let mut places: Vec<(Option<&str>, Option<&str>)> = Vec::new();
    for reason in reasons {
        let place = (reason.destination.as_deref(), reason.operation.as_deref());
        if places.contains(&place) {
            continue;
        }
        places.push(place);
        evidences.push(Evidence {
            src_endpoint: source(finding),
            dst_endpoint: place.0.map(endpoint),
            connection_info: place.0.map(|_| ConnectionInfo { direction_id: 3, direction: "Lateral" }),
            api: place.1.map(|operation| Api { operation: plain(operation) }),
            actor: actor(finding),
        });
    }
    // Who else is in it, so that they are found by whoever searches for them.
    let others = finding.members.iter().filter(|member| member.identity != finding.identity);
    evidences.extend(others.take(TOLD).map(|member| Evidence {
        src_endpoint: Endpoint {
            svc_name: plain(member.identity.workload.as_ref().unwrap_or(&member.identity.service)),
            ..endpoint(&member.identity.principal)
        },
        dst_endpoint: None,
        connection_info: None,
        api: None,
        actor: actor_of(&member.identity),
    }));
    evidences
}

fn resources(finding: &Finding) -> Vec<Resource> {
    let mut resources: Vec<Resource> = Vec::new();
    for destination in told(finding).filter_map(|reason| reason.destination.as_deref()) {
        let Endpoint { svc_name, uid, .. } = endpoint(destination);
        if resources.iter().all(|resource| resource.uid != uid) {
            resources.push(Resource { uid, name: svc_name, kind: "Service" });
        }
    }
    resources
}

fn unmapped(finding: &Finding) -> Unmapped {
    let bits = |reason: &Reason| Bits {
        detector: plain(&reason.detector),
        bits: reason.bits,
        n: reason.n,
        usual: reason.range.clone(),
        familiar: reason.familiar,
    };
    Unmapped {
        level: finding.level,
        previous_level: finding.previous,
        effect: finding.effect,
        decision: plain(&finding.decision),
        evidence_bits: finding.evidence_bits,
        threshold_bits: finding.threshold_bits,
        rate_per_day: finding.rate_per_day,
        lease_until: finding.lease_until.map(millis),
        cluster: finding.identity.cluster.as_deref().map(plain),
        instances: finding.instances.iter().take(TOLD).map(|instance| plain(instance)).collect(),
        instances_count: finding.instances.len(),
        workload: finding.identity.workload.as_deref().map(plain),
        co_owners: finding.co_owners.iter().map(|workload| plain(workload)).collect(),
        incident: incident(finding),
        reasons: told(finding).map(bits).collect(),
        reasons_count: finding.reasons.len(),
        carried_by: finding.carried_by.iter().map(carrier).collect(),
        next: finding.next.iter().take(TOLD).map(|hint| plain(hint)).collect(),
    }
}

fn carrier(of: &Carrier) -> Records {
    Records {
        input: plain(&of.input),
        partition: of.partition,
        first: of.first,
        last: of.last,
        events: of.events,
        start_time: millis(of.since),
        end_time: millis(of.until),
        detector: of.detector.map(|question| question.name()),
        destination: of.destination.as_deref().map(plain),
        bits: of.bits,
    }
}

fn incident(finding: &Finding) -> Option<Incident> {
    let member = |of: &Member| InIncident {
        identity: plain(&crate::workloads::name(
            &of.identity.principal,
            of.identity.cluster.as_deref(),
            of.identity.workload.as_deref(),
        )),
        level: of.level,
        evidence_bits: of.evidence_bits,
        since: millis(of.since),
        decision: plain(&of.decision),
        observed: plain(&of.observed),
    };
    (!finding.members.is_empty()).then(|| Incident {
        cause: finding.shared.as_ref().map(cause).unwrap_or_default(),
        members: finding.members.iter().map(member).collect(),
    })
}

fn told(finding: &Finding) -> impl Iterator<Item = &Reason> {
    finding.reasons.iter().take(TOLD)
}

/// The calling end; where one instance is meant, that one.
fn source(finding: &Finding) -> Endpoint {
    let mut endpoint = endpoint(&finding.identity.principal);
    endpoint.svc_name = plain(finding.identity.workload.as_ref().unwrap_or(&finding.identity.service));
    if let [instance] = finding.instances.as_slice() {
        endpoint.ip = instance.parse().ok();
        endpoint.instance_uid = endpoint.ip.is_none().then(|| plain(instance));
    }
    endpoint
}

fn endpoint(principal: &str) -> Endpoint {
    Endpoint {
        svc_name: plain(Hierarchy::of(principal).service),
        uid: plain(principal),
        ip: principal.parse().ok(),
        instance_uid: None,
    }
}

fn actor(finding: &Finding) -> Actor {
    actor_of(&finding.identity)
}

fn actor_of(identity: &Identity) -> Actor {
    let uid = plain(&identity.principal);
    Actor { user: User { uid, name: plain(&identity.service), type_id: 4, kind: "Service" } }
}

fn no_reason() -> Reason {
    Reason {
        detector: String::new(),
        bits: 0.0,
        observed: String::new(),
        expected: String::new(),
        n: 0.0,
        range: String::new(),
        familiar: None,
        destination: None,
        operation: None,
    }
}

/// What was measured: the question, and where.
fn parameter(reason: &Reason) -> String {
    let mut parameter = plain(&reason.detector);
    for place in [&reason.destination, &reason.operation].into_iter().flatten() {
        parameter.push_str(" @ ");
        parameter.push_str(&plain(place));
    }
    parameter
}

const fn millis(time: Timestamp) -> i64 {
    time.0.div_euclid(1_000_000)
}
