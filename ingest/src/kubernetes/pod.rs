//! What is read of a pod: its addresses, its account, and when it began and ended. Nothing else is kept, so that no
//! secret in its environment gets any further.

use std::sync::Arc;

use kube::{ResourceExt as _, core::Object};
use qualm_model::{
    identity::{Tenancy, Tenant, workload_of_pod},
    time::{Span, Timestamp},
};
use serde::Deserialize;

use crate::parse::time::rfc3339;

/// A pod, as far as it is read.
pub(super) type Pod = Object<Spec, Status>;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    host_network: bool,
    service_account_name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    phase: String,
    #[serde(rename = "podIP")]
    ip: String,
    #[serde(rename = "podIPs")]
    ips: Vec<Address>,
    start_time: Option<String>,
    conditions: Vec<Condition>,
    container_statuses: Vec<Container>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Address {
    ip: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    r#type: String,
    status: String,
    last_transition_time: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Container {
    state: State,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct State {
    terminated: Option<Terminated>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terminated {
    finished_at: Option<String>,
}

/// Since then the pod's network is there; its containers are started afterwards.
const NETWORK_READY: &str = "PodReadyToStartContainers";
/// Times are told to the second, cut off.
const PRECISION: Span = Span::SECOND;

/// A pod that the API server has, at `now`. One that is being deleted still runs; one whose containers have all ended
/// has left its address. `None` where it has no address yet.
pub(super) fn running(pod: &Pod, cluster: &Arc<str>, now: Timestamp) -> Option<Tenancy> {
    let status = pod.status.as_ref()?;
    let has_ended = matches!(status.phase.as_str(), "Succeeded" | "Failed");
    let until = has_ended.then(|| status.finished().unwrap_or(now).min(now));
    tenancy(pod, status, cluster, until, now)
}

/// A pod that the API server has no more, as it was last seen. `by` is when it had ended at the latest.
pub(super) fn ended(pod: &Pod, cluster: &Arc<str>, by: Timestamp, now: Timestamp) -> Option<Tenancy> {
    let status = pod.status.as_ref()?;
    let until = status.finished().unwrap_or(by).min(by);
    tenancy(pod, status, cluster, Some(until), now)
}

fn tenancy(
    pod: &Pod,
    status: &Status,
    cluster: &Arc<str>,
    until: Option<Timestamp>,
    now: Timestamp,
) -> Option<Tenancy> {
    let addresses = status.addresses();
    let since = status.since().unwrap_or(now).min(now);
    if pod.spec.host_network {
        // The node's, before this pod and after it.
        let tenancy = Tenancy {
            cluster: Arc::clone(cluster),
            pod: "".into(),
            tenant: Tenant::Node,
            addresses,
            since,
            until: None,
            told: now,
        };
        return (!tenancy.addresses.is_empty() && until.is_none()).then_some(tenancy);
    }
    if addresses.is_empty() && until.is_none() {
        return None;
    }
    let (name, namespace) = (pod.name_any(), pod.namespace()?);
    let account = match pod.spec.service_account_name.as_str() {
        "" => "default",
        account => account,
    };
    Some(Tenancy {
        cluster: Arc::clone(cluster),
        pod: pod.uid()?.into(),
        tenant: Tenant::Workload {
            name: format!("{}.{namespace}", workload_of_pod(&name)).into(),
            account: format!("/ns/{namespace}/sa/{account}").into(),
            instance: name.into(),
        },
        addresses,
        since,
        until: until.map(|until| until.max(since)),
        told: now,
    })
}

impl Status {
    fn addresses(&self) -> Vec<Arc<str>> {
        let all = self.ips.iter().map(|address| &*address.ip).chain([&*self.ip]).filter(|ip| !ip.is_empty());
        let mut addresses: Vec<Arc<str>> = Vec::new();
        for ip in all {
            if !addresses.iter().any(|known| **known == *ip) {
                addresses.push(ip.into());
            }
        }
        // One a protocol, and the first of them once more.
        addresses.truncate(4);
        addresses
    }

    fn since(&self) -> Option<Timestamp> {
        let ready = self.conditions.iter().find(|it| it.r#type == NETWORK_READY && it.status == "True");
        let ready = ready.and_then(|condition| condition.last_transition_time.as_deref());
        time(ready).or_else(|| time(self.start_time.as_deref()))
    }

    /// When the last container ended, where all have.
    fn finished(&self) -> Option<Timestamp> {
        let ends: Option<Vec<Timestamp>> = self
            .container_statuses
            .iter()
            .map(|container| time(container.state.terminated.as_ref()?.finished_at.as_deref()))
            .collect();
        Some(ends?.into_iter().max()? + PRECISION)
    }
}

fn time(text: Option<&str>) -> Option<Timestamp> {
    rfc3339(text?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const STARTED: &str = "2026-11-22T02:02:24Z";

    fn read(spec: &Value, status: &Value) -> Pod {
        let metadata = json!({ "name": "cart-7d6c6c7775-49tpt", "namespace": "shop", "uid": "u-1" });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec, "status": status })).expect("a pod")
    }

    fn at(text: &str) -> Timestamp {
        rfc3339(text).expect("a time")
    }

    fn now() -> Timestamp {
        at("2026-11-22T03:00:00Z")
    }

    #[test]
    fn a_running_pod_has_its_addresses_since_its_network_was_there() {
        let status = json!({ "phase": "Running", "podIP": "10.1.2.3", "podIPs": [{ "ip": "10.1.2.3" }, { "ip": "fd00::3" }],
            "startTime": STARTED, "conditions": [{ "type": "PodReadyToStartContainers", "status": "True",
            "lastTransitionTime": "2026-11-22T02:02:30Z" }] });
        let spec =
            json!({ "serviceAccountName": "cart", "containers": [{ "env": [{ "name": "A", "value": "secret" }] }] });
        let told = running(&read(&spec, &status), &"east".into(), now()).expect("it has an address");
        assert_eq!((&*told.cluster, &*told.pod, told.until), ("east", "u-1", None));
        assert_eq!(told.addresses, ["10.1.2.3".into(), "fd00::3".into()] as [Arc<str>; 2]);
        assert_eq!(told.since, at("2026-11-22T02:02:30Z"));
        let tenant = Tenant::Workload {
            name: "cart.shop".into(),
            instance: "cart-7d6c6c7775-49tpt".into(),
            account: "/ns/shop/sa/cart".into(),
        };
        assert_eq!(told.tenant, tenant);
        assert!(!format!("{told:?}").contains("secret"));
    }

    #[test]
    fn a_pod_without_an_address_is_not_told_of() {
        for status in [json!({ "phase": "Pending" }), json!({ "phase": "Pending", "startTime": STARTED }), json!({})] {
            assert_eq!(running(&read(&json!({}), &status), &"".into(), now()), None, "{status}");
        }
    }

    #[test]
    fn a_pod_without_a_network_of_its_own_has_its_nodes_address() {
        let status = json!({ "phase": "Running", "podIP": "192.0.2.7", "startTime": STARTED });
        let pod = read(&json!({ "hostNetwork": true }), &status);
        let told = running(&pod, &"".into(), now()).expect("it has an address");
        assert_eq!((&*told.pod, told.tenant), ("", Tenant::Node));
        assert_eq!(ended(&pod, &"".into(), now(), now()), None, "the node stays");
    }

    #[test]
    fn a_pod_has_ended_with_its_last_container_and_at_the_latest_when_it_is_gone() {
        let ending = |times: &[Option<&str>]| {
            let state = |time: &Option<&str>| match time {
                Some(time) => json!({ "state": { "terminated": { "finishedAt": time } } }),
                None => json!({ "state": { "running": {} } }),
            };
            let containers: Vec<Value> = times.iter().map(state).collect();
            json!({ "phase": "Failed", "podIP": "10.1.2.3", "startTime": STARTED, "containerStatuses": containers })
        };
        let until = |status: &Value| running(&read(&json!({}), status), &"".into(), now()).expect("an address").until;
        let both = ending(&[Some("2026-11-22T02:10:00Z"), Some("2026-11-22T02:11:00Z")]);
        assert_eq!(until(&both), Some(at("2026-11-22T02:11:01Z")));
        assert_eq!(until(&ending(&[])), Some(now()));
        assert_eq!(until(&ending(&[Some("2026-11-22T02:10:00Z"), None])), Some(now()));
        // It is being deleted: its containers still run.
        let mut running = ending(&[None]);
        running["phase"] = "Running".into();
        assert_eq!(until(&running), None);
        let by = at("2026-11-22T02:30:00Z");
        let gone = |status: &Value| ended(&read(&json!({}), status), &"".into(), by, now()).expect("it had one").until;
        assert_eq!(gone(&running), Some(by));
        assert_eq!(gone(&both), Some(at("2026-11-22T02:11:01Z")));
    }
}
