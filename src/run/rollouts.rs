//! Rollouts, as the pods of watched clusters show them: a pod of another ReplicaSet than those that are known of its
//! Deployment. Each is announced once, as a pipeline would by `qualm announce`, and hides no more than that does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use qualm_model::identity::{Tenancy, Tenant};
use sha2::{Digest as _, Sha256};

/// Deployments that are followed; what is beyond is not announced.
const DEPLOYMENTS: usize = 20_000;
/// Templates of one that are known: more pods at once of different versions are no rollout any more.
const TEMPLATES: usize = 16;

/// Which ReplicaSets each Deployment had.
#[derive(Debug, Default)]
pub(crate) struct Rollouts {
    of: BTreeMap<(String, String), BTreeSet<String>>,
}

/// A Deployment that has a new template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rollout {
    /// `namespace/account`, as it is announced.
    pub(crate) service: String,
    /// `cart.shop`.
    pub(crate) workload: String,
    /// The hash of its template, as in the names of its pods.
    pub(crate) template: String,
    /// The same for the same rollout, also after a restart.
    pub(crate) key: String,
}

impl Rollouts {
    /// Takes in pods that there are, told together. Of a Deployment that was not known before them nothing is a rollout:
    /// the first list may come in the middle of one.
    pub(crate) fn see(&mut self, pods: &[Tenancy]) -> Vec<Rollout> {
        let mut new = BTreeSet::new();
        pods.iter().filter_map(|pod| self.see_one(pod, &mut new)).collect()
    }

    fn see_one(&mut self, pod: &Tenancy, new: &mut BTreeSet<(String, String)>) -> Option<Rollout> {
        let Tenant::Workload { name, instance, account } = &pod.tenant else { return None };
        let template = template(name, instance).filter(|_| pod.until.is_none())?;
        let of = (pod.cluster.to_string(), name.to_string());
        if !self.of.contains_key(&of) {
            if self.of.len() >= DEPLOYMENTS {
                return None;
            }
            new.insert(of.clone());
        }
        let is_first = new.contains(&of);
        let known = self.of.entry(of).or_default();
        if !known.insert(template.to_owned()) {
            return None;
        }
        if known.len() > TEMPLATES {
            known.retain(|of| of == template);
        }
        let service = account.strip_prefix("/ns/").and_then(|rest| rest.split_once("/sa/"));
        let (namespace, account) = service.filter(|_| !is_first)?;
        Some(Rollout {
            service: format!("{namespace}/{account}"),
            workload: name.to_string(),
            template: template.to_owned(),
            key: key(&[&pod.cluster, name, template]),
        })
    }
}

/// The hash of a Deployment's template in the name of one of its pods; `None` where a pod is of something else.
fn template<'a>(workload: &str, pod: &'a str) -> Option<&'a str> {
    let (name, _) = workload.rsplit_once('.')?;
    let (hash, _) = pod.strip_prefix(name)?.strip_prefix('-')?.rsplit_once('-')?;
    // The Job of a CronJob has the minute in its place.
    let is_hash = !hash.contains('-') && !hash.is_empty() && !hash.bytes().all(|byte| byte.is_ascii_digit());
    is_hash.then_some(hash)
}

fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut key = "rollout-".to_owned();
    for byte in &hash.finalize()[..16] {
        // Writing to a text cannot fail.
        let _ = write!(key, "{byte:02x}");
    }
    key
}

#[cfg(test)]
mod tests {
    use qualm_model::time::Timestamp;

    use super::*;

    fn pod(workload: &str, name: &str) -> Tenancy {
        Tenancy {
            cluster: "north".into(),
            pod: name.into(),
            tenant: Tenant::Workload {
                name: workload.into(),
                instance: name.into(),
                account: "/ns/shop/sa/cart-account".into(),
            },
            addresses: Vec::new(),
            since: Timestamp(0),
            until: None,
            told: Timestamp(0),
        }
    }

    fn seen(rollouts: &mut Rollouts, pods: &[Tenancy]) -> Vec<String> {
        rollouts.see(pods).into_iter().map(|of| format!("{} {}", of.service, of.template)).collect()
    }

    #[test]
    fn the_first_pod_of_another_replica_set_is_a_rollout_and_scaling_or_restarting_is_none() {
        let mut rollouts = Rollouts::default();
        let first = ["cart-7d6c6c7775-49tpt", "cart-7d6c6c7775-zz2p5", "cart-66d9c8d4f7-zz2p5"];
        let first = first.map(|name| pod("cart.shop", name));
        assert_eq!(seen(&mut rollouts, &first), [""; 0], "what is there at the start is none");
        assert_eq!(
            seen(&mut rollouts, &[pod("cart.shop", "cart-7d6c6c7775-x9x9x")]),
            [""; 0],
            "nor is one more replica"
        );
        let second = pod("cart.shop", "cart-5c9f7d8b6c-x2vkq");
        assert_eq!(seen(&mut rollouts, std::slice::from_ref(&second)), ["shop/cart-account 5c9f7d8b6c"]);
        assert_eq!(seen(&mut rollouts, &[second, pod("cart.shop", "cart-5c9f7d8b6c-rrrrr")]), [""; 0], "it is one");
        assert_eq!(seen(&mut rollouts, &[pod("cart.shop", "cart-7d6c6c7775-b2b2b")]), [""; 0], "the way back is known");
    }

    #[test]
    fn what_is_no_deployment_s_and_what_has_ended_is_no_rollout() {
        let mut rollouts = Rollouts::default();
        for (workload, names) in [
            ("db.shop", ["db-0", "db-1"]),
            ("agent.shop", ["agent-49tpt", "agent-zz2p5"]),
            ("nightly.shop", ["nightly-29384756-49tpt", "nightly-29384757-zz2p5"]),
        ] {
            assert_eq!(seen(&mut rollouts, &names.map(|name| pod(workload, name))), [""; 0], "{workload}");
        }
        seen(&mut rollouts, &[pod("cart.shop", "cart-7d6c6c7775-49tpt")]);
        let ended = Tenancy { until: Some(Timestamp(1)), ..pod("cart.shop", "cart-5c9f7d8b6c-x2vkq") };
        assert_eq!(seen(&mut rollouts, &[ended]), [""; 0]);
    }

    #[test]
    fn the_same_rollout_has_the_same_key_and_another_another() {
        let of = |template: &str| key(&["north", "cart.shop", template]);
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a"), of("b"));
        assert!(of("a").len() <= 64 && of("a").bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
    }
}
