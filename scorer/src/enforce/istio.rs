//! Istio's `AuthorizationPolicy` as the durable twin of a quarantine: DENY by principal, in the namespaces that the
//! configuration names, for as long as the decision stands. It holds also where our own filters are not wired, and where
//! Qualm is gone; so it says in an annotation when it was to end. Opt-in, and where it is to be only so, for decisions that
//! leak.
//!
//! What is to be there follows from the table, and is compared with what is: after a crash nothing is forgotten, and
//! nothing is left. Only objects with our labels are looked at. One that somebody else has changed since is left as it is,
//! and said.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    net::IpAddr,
    time::Duration,
};

use kube::{
    Api, Client,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
        Preconditions,
    },
};
use prometheus::{IntCounter, IntGauge, Registry};
use qualm_model::{
    level::Level,
    time::{Clock, Timestamp},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{Enforcer, leases::Leases};
use crate::table::{Enforcement, EnforcementReport, Object, SharedTable, TrustEntry, TrustTable};

/// The word for this kind of enforcement point in reports and metrics.
pub const ENFORCER: &str = "istio";
/// What is there is compared with what is to be at least so often: whoever deletes a policy finds it again.
const EVERY: Duration = Duration::from_secs(5);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Policies of one namespace; what is beyond is counted, and not there.
const MOST: usize = 256;
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const OWNER: &str = "qualm/owner";
const SPEC: &str = "qualm/spec";
const EXPIRES: &str = "qualm/expires";

/// `[[istio]]`: where twins of quarantines are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IstioConfig {
    /// The `[[kubernetes]]` section whose API is written to, by its `cluster`.
    pub cluster: String,
    /// Namespaces in which callers are denied: those of the called. Istio's root namespace stands for all.
    pub namespaces: Vec<String>,
    /// For which decisions.
    pub when: When,
    /// The label by which this Qualm knows its own policies again; two that write to one cluster need two.
    pub owner: String,
}

/// For which decisions there is a twin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// For every quarantine.
    #[default]
    Always,
    /// For those that a proxy has leaked.
    Leaking,
}

impl Default for IstioConfig {
    fn default() -> Self {
        Self { cluster: String::new(), namespaces: Vec::new(), when: When::Always, owner: "qualm".to_owned() }
    }
}

/// What is counted of all sections.
#[derive(Debug, Clone)]
pub struct IstioMetrics {
    /// Policies that are there.
    policies: IntGauge,
    /// Times that the API refused or did not answer.
    failures: IntCounter,
}

impl IstioMetrics {
    /// Creates and registers them.
    ///
    /// # Errors
    /// When the registry already has metrics of these names.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let policies = IntGauge::new("qualm_istio_policies", "AuthorizationPolicies of Qualm's that are there.")?;
        let failures = IntCounter::new(
            "qualm_istio_failures_total",
            "Times that the Kubernetes API did not do what was asked about an AuthorizationPolicy.",
        )?;
        registry.register(Box::new(policies.clone()))?;
        registry.register(Box::new(failures.clone()))?;
        Ok(Self { policies, failures })
    }
}

/// The twins in one cluster.
pub struct Istio {
    client: Client,
    config: IstioConfig,
    clock: Clock,
    metrics: IstioMetrics,
    resource: ApiResource,
}

impl fmt::Debug for Istio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Istio").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Why what is to be there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("{namespace}: {problem}")]
    Api { namespace: String, problem: String },
    #[error(
        "{namespace}/{name}: somebody else has changed it since it was written, so it is left as it is; delete it when it is \
         not needed"
    )]
    Foreign { namespace: String, name: String },
    #[error("{namespace}: {beyond} quarantines have no policy, as there are {MOST} already")]
    TooMany { namespace: String, beyond: usize },
}

impl Istio {
    /// Nothing is asked of the API before [`Enforcer::run`].
    pub fn new(client: Client, config: IstioConfig, clock: Clock, metrics: IstioMetrics) -> Self {
        let kind = GroupVersionKind::gvk("security.istio.io", "v1", "AuthorizationPolicy");
        let resource = ApiResource::from_gvk_with_plural(&kind, "authorizationpolicies");
        Self { client, config, clock, metrics, resource }
    }

    /// The policies that a table asks for, by name.
    fn wanted(&self, table: &TrustTable, leases: &mut Leases) -> BTreeMap<String, Value> {
        let (wall, now) = (self.clock.now(), Instant::now());
        let entries = table.entries.iter().filter(|entry| is_meant(entry, &self.config.cluster));
        let entries = entries.filter(|entry| match self.config.when {
            When::Always => true,
            When::Leaking => table.leaking.contains(&entry.decision),
        });
        let standing = entries.filter(|entry| leases.end(entry, wall, now).is_some());
        standing.filter_map(|entry| Some((name_of(entry), policy(entry, table, &self.config.owner)?))).collect()
    }

    /// Has every namespace hold what is wanted and nothing else of ours; how many are there, and what is not as it should.
    async fn settle(&self, wanted: &BTreeMap<String, Value>) -> (usize, Vec<Problem>) {
        let (mut there, mut problems) = (0, Vec::new());
        for namespace in &self.config.namespaces {
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &self.resource);
            match self.settle_one(&api, namespace, wanted, &mut problems).await {
                Ok(count) => there += count,
                Err(problem) => problems.push(problem),
            }
        }
        (there, problems)
    }

    async fn settle_one(
        &self,
        api: &Api<DynamicObject>,
        namespace: &str,
        wanted: &BTreeMap<String, Value>,
        problems: &mut Vec<Problem>,
    ) -> Result<usize, Problem> {
        let ours = ListParams::default().labels(&format!("{MANAGED_BY}=qualm,{OWNER}={}", self.config.owner));
        let found = asked(namespace, api.list(&ours)).await?;
        let mut known = BTreeSet::new();
        for object in found {
            let name = object.metadata.name.clone().unwrap_or_default();
            let Some(policy) = wanted.get(&name) else {
                problems.extend(self.take_back(api, namespace, &object).await.err());
                continue;
            };
            known.insert(name.clone());
            let ends = |annotations: &Value| annotations["metadata"]["annotations"][EXPIRES].clone();
            let stands = json!({ "metadata": { "annotations": object.metadata.annotations } });
            if ends(&stands) != ends(policy) {
                let renewed = json!({ "metadata": { "annotations": { EXPIRES: ends(policy) } } });
                let patch = Patch::Merge(&renewed);
                asked(namespace, api.patch(&name, &PatchParams::default(), &patch)).await?;
            }
        }
        let missing: Vec<_> = wanted.iter().filter(|(name, _)| !known.contains(*name)).collect();
        let room = MOST.saturating_sub(known.len());
        if missing.len() > room {
            problems.push(Problem::TooMany { namespace: namespace.to_owned(), beyond: missing.len() - room });
        }
        for (_, policy) in missing.iter().take(room) {
            let object: DynamicObject = serde_json::from_value((*policy).clone())
                .map_err(|error| Problem::Api { namespace: namespace.to_owned(), problem: error.to_string() })?;
            asked(namespace, api.create(&PostParams::default(), &object)).await?;
        }
        Ok(known.len() + missing.len().min(room))
    }

    /// Deletes what we have written, as it was written.
    async fn take_back(
        &self,
        api: &Api<DynamicObject>,
        namespace: &str,
        object: &DynamicObject,
    ) -> Result<(), Problem> {
        let name = object.metadata.name.clone().unwrap_or_default();
        let written = object.metadata.annotations.as_ref().and_then(|of| of.get(SPEC));
        let written: Option<Value> = written.and_then(|text| serde_json::from_str(text).ok());
        if written.as_ref() != object.data.get("spec") {
            return Err(Problem::Foreign { namespace: namespace.to_owned(), name });
        }
        // Not one that has taken its place, nor as somebody has just changed it.
        let unchanged = Preconditions {
            uid: object.metadata.uid.clone(),
            resource_version: object.metadata.resource_version.clone(),
        };
        let how = DeleteParams { preconditions: Some(unchanged), ..DeleteParams::default() };
        asked(namespace, api.delete(&name, &how)).await.map(drop)
    }
}

impl Enforcer for Istio {
    async fn run(self, mut table: watch::Receiver<SharedTable>, reports: mpsc::Sender<EnforcementReport>) {
        let mut leases = Leases::default();
        let (mut told, mut reported) = (Vec::new(), None);
        let mut again = interval(EVERY);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = table.changed() => if changed.is_err() { return },
                _ = again.tick() => {}
            }
            let table = table.borrow_and_update().clone();
            leases.adopt(&table, self.clock.now(), Instant::now());
            let wanted = self.wanted(&table, &mut leases);
            let (there, problems) = self.settle(&wanted).await;
            self.metrics.policies.set(i64::try_from(there).unwrap_or(i64::MAX));
            self.metrics.failures.inc_by(problems.len() as u64);
            let what = problems.first().map_or(Enforcement::Acknowledged, |of| Enforcement::Rejected(of.to_string()));
            // What is said again and again is said once.
            if problems != told {
                for problem in &problems {
                    tracing::error!(cluster = self.config.cluster, %problem, "Istio's AuthorizationPolicies");
                }
                told = problems;
            }
            if reported.as_ref() != Some(&(table.version, what.clone())) {
                reported = Some((table.version, what.clone()));
                let report = EnforcementReport {
                    enforcer: ENFORCER.to_owned(),
                    node: format!("istio/{}", self.config.cluster),
                    identity: None,
                    version: table.version,
                    at: self.clock.now(),
                    what,
                };
                // A full channel holds up no policy; the next change says it again.
                let _ = reports.try_send(report);
            }
        }
    }
}

/// Waits for an answer; what is gone already, or there already under our own name, is as it should be.
async fn asked<T>(namespace: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T, Problem> {
    let problem = match timeout(PATIENCE, call).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => format!(
            "{}; let Qualm list, create, patch and delete authorizationpolicies there (docs/containment.md has the role)",
            status.message
        ),
        Ok(Err(kube::Error::Api(status))) => status.message.clone(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer in {} s", PATIENCE.as_secs()),
    };
    let problem = problem.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    Err(Problem::Api { namespace: namespace.to_owned(), problem })
}

/// Whether an entry has a twin: a quarantine that acts, of a SPIFFE ID, in this cluster, within a scope that a policy has
/// words for.
fn is_meant(entry: &TrustEntry, cluster: &str) -> bool {
    entry.enforce
        && entry.level >= Level::Quarantined
        && entry.object == Object::Any
        && entry.is_tellable()
        && entry.subject.cluster.as_deref().unwrap_or_default() == cluster
        && entry.subject.principal.starts_with("spiffe://")
        && entry.subject.instance.as_deref().is_none_or(|of| of.parse::<IpAddr>().is_ok())
}

fn name_of(entry: &TrustEntry) -> String {
    format!("qualm-{}", entry.decision)
}

/// The policy of an entry; `None` where its principal is none of Istio's.
fn policy(entry: &TrustEntry, table: &TrustTable, owner: &str) -> Option<Value> {
    let mut source = json!({ "principals": [entry.subject.principal.strip_prefix("spiffe://")?] });
    if let Some(instance) = &entry.subject.instance {
        source["ipBlocks"] = json!([instance]);
    }
    let mut rule = json!({ "from": [{ "source": source }] });
    // Over TCP, where there are no paths, all is denied.
    if !table.reachable.paths.is_empty() {
        rule["to"] = json!([{ "operation": { "notPaths": table.reachable.paths } }]);
    }
    let spec = json!({ "action": "DENY", "rules": [rule] });
    Some(json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {
            "name": name_of(entry),
            "labels": { MANAGED_BY: "qualm", OWNER: owner },
            "annotations": {
                "qualm/identity": entry.subject.identity(),
                "qualm/decision": entry.decision,
                EXPIRES: rfc3339(entry.expires),
                SPEC: spec.to_string(),
            },
        },
        "spec": spec,
    }))
}

fn rfc3339(time: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time.0)).map_or_else(
        |_| format!("{} s after 1970", time.as_seconds()),
        |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Reachable, Subject};

    fn entry(level: Level, instance: Option<&str>) -> TrustEntry {
        TrustEntry {
            decision: "3f2a".into(),
            subject: Subject {
                principal: "spiffe://mesh.test/ns/shop/sa/cart".into(),
                cluster: None,
                workload: None,
                instance: instance.map(str::to_owned),
            },
            object: Object::Any,
            level,
            enforce: true,
            decided: Timestamp::from_seconds(0),
            expires: Timestamp::from_seconds(3600),
            evidence_bits: 20.0,
            co_owners: Vec::new(),
            reason: String::new(),
            known: None,
        }
    }

    #[test]
    fn a_twin_denies_the_principal_and_where_one_instance_is_meant_only_that_and_never_what_stays_open() {
        let reachable = Reachable { destinations: Vec::new(), paths: vec!["/healthz".to_owned()] };
        let table = TrustTable { reachable, ..TrustTable::default() };
        let one = policy(&entry(Level::Quarantined, Some("10.0.0.7")), &table, "qualm").expect("it has one");
        let rule = &one["spec"]["rules"][0];
        assert_eq!(one["spec"]["action"], "DENY");
        assert_eq!(rule["from"][0]["source"]["principals"], json!(["mesh.test/ns/shop/sa/cart"]));
        assert_eq!(rule["from"][0]["source"]["ipBlocks"], json!(["10.0.0.7"]));
        assert_eq!(rule["to"][0]["operation"]["notPaths"], json!(["/healthz"]));
        assert_eq!(one["metadata"]["annotations"][EXPIRES], "1970-01-01T01:00:00Z");
        let written = one["metadata"]["annotations"][SPEC].as_str().expect("a text");
        assert_eq!(serde_json::from_str::<Value>(written).expect("JSON"), one["spec"]);
        let all = policy(&entry(Level::Quarantined, None), &TrustTable::default(), "qualm").expect("it has one");
        assert!(all["spec"]["rules"][0]["from"][0]["source"]["ipBlocks"].is_null());
        assert!(all["spec"]["rules"][0]["to"].is_null());
    }

    #[test]
    fn what_only_marks_or_limits_or_is_wider_than_its_evidence_has_no_twin() {
        let quarantined = entry(Level::Quarantined, None);
        assert!(is_meant(&quarantined, ""));
        for other in [
            TrustEntry { enforce: false, ..quarantined.clone() },
            TrustEntry { level: Level::Restricted, ..quarantined.clone() },
            TrustEntry { co_owners: vec!["cart".into(), "mail".into()], ..quarantined.clone() },
            TrustEntry { object: Object::Destination("x".into()), ..quarantined.clone() },
            entry(Level::Quarantined, Some("cart-7f9c")),
        ] {
            assert!(!is_meant(&other, ""), "{other:?}");
        }
        assert!(!is_meant(&quarantined, "north"), "another cluster's");
    }
}
