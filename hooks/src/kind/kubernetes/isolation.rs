//! Pods cut off from the network, by a policy that is created for the decision and a label by which it selects them.
//!
//! A policy with deny is written where the cluster has the definition of one. With plain ones, which only add up, it is
//! found out first which others let the pod go on; on demand the labels by which these select it are taken away, and kept
//! in an annotation of the pod.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    Kubernetes, MERGE,
    policy::{Cut, DECISION, ISOLATED, MANAGED_BY, Others, PolicyKind, Served, name_of, named, object},
    text,
};
use crate::{
    hook::{Effect, Failure, Found, Undone},
    order::Order,
    template::in_url,
};

/// Policies or pods that are named; of more it is told how many.
const FEW: usize = 8;
/// Pods that one order labels at most.
const MOST_PODS: usize = 1_000;
/// The labels that a pod has lost, as JSON.
const LOST: &str = "qualm/labels";
/// By this Cilium knows pods by their service account.
const CILIUM_ACCOUNT: &str = "k8s:io.cilium.k8s.policy.serviceaccount";

impl Kubernetes {
    pub(super) fn read_isolation(&self, order: &Order) -> Result<Found, Failure> {
        let (namespace, account) = self.account_of(order)?;
        let mut pods = self.pods_of(order, &namespace, &account)?;
        pods.retain(is_running);
        let (unbound, pods): (Vec<Value>, Vec<Value>) =
            pods.into_iter().partition(|pod| pod["spec"]["hostNetwork"] == true);
        let unbound: Vec<String> = unbound.iter().map(name_of).collect();
        if pods.is_empty() {
            let why =
                if unbound.is_empty() { "no pod" } else { "only pods in their node's network, which no policy binds," };
            return Ok(Found::Nothing(format!("{why} of {namespace}/{account}{}", at(order))));
        }
        let served = self.served()?;
        let label = format!("{ISOLATED}{}", named(&order.decision));
        // By its account Cilium knows those too that start later.
        let by_account = order.subject.instance.is_none() && served.kind == PolicyKind::Cilium;
        if pods.len() > MOST_PODS && !by_account {
            return Ok(Found::Nothing(format!(
                "{} pods of {namespace}/{account} are too many to be labelled",
                pods.len()
            )));
        }
        let others = self.others(&served, &namespace)?;
        let (mut kept, mut open) = (Vec::new(), BTreeSet::new());
        for pod in &pods {
            let mut labels = pod["metadata"]["labels"].clone();
            let lost = if self.replace_labels { others.selecting(&labels) } else { Map::new() };
            lost.keys().for_each(|key| drop(labels.as_object_mut().and_then(|labels| labels.remove(key))));
            open.extend(others.open(&labels).map(name_of));
            if !by_account {
                kept.push(of_pod(pod, &lost));
            }
        }
        let binds = |pod: &Value| others.bind_egress(&pod["metadata"]["labels"]);
        // Where others say already whom it may call, ours must not add to it.
        let reachable: &[String] = if pods.iter().any(binds) { &[] } else { &self.reachable };
        let selected = if by_account { json!({ CILIUM_ACCOUNT: account }) } else { json!({ &label: "true" }) };
        let policy = object(&served, order, Cut { namespace: &namespace, pods: &selected, reachable });
        let mut name = format!(
            "{} {} on {} pods of {namespace}/{account}{}",
            served.word,
            text(&policy["metadata"], "name"),
            pods.len(),
            at(order)
        );
        // Here, so that a dry run tells of it too.
        if !open.is_empty() {
            let open: Vec<&str> = open.iter().map(String::as_str).collect();
            name = format!("{name}, not isolated by {}", few(&open));
        }
        let mut before = json!({ "in": served.path(&namespace), "policy": policy, "label": label, "pods": kept, "open": open,
            "unbound": unbound, "by_account": by_account, "reachable": reachable });
        if order.subject.instance.is_none() && !by_account {
            // Those that start later are to be found too.
            before["all"] = json!({ "namespace": namespace, "account": account });
        }
        Ok(Found::Target { name, before })
    }

    /// The policies beside which ours stands; none where ours goes before all of them.
    fn others(&self, served: &Served, namespace: &str) -> Result<Others, Failure> {
        if served.kind != PolicyKind::Plain {
            return Ok(Others::default());
        }
        self.list(&served.path(namespace)).map(Others::new)
    }

    pub(super) fn isolate(&self, before: &Value) -> Result<(), Failure> {
        let answer = self.ask("POST", text(before, "in"), "application/json", Some(&before["policy"]))?;
        // It is there after an act that was cut short.
        if answer.status != 409 {
            answer.ok(self.http.url())?;
        } else if self.policy_of(before)?.is_none_or(|policy| !is_ours(&policy, before)) {
            let why = format!("{} is there already, and is none of Qualm's: delete or rename it", path_of(before));
            return Err(Failure::Refused(why));
        }
        for pod in pods(before) {
            self.cut(before, pod)?;
        }
        for pod in self.later_pods(before, self.pods_there(before)?)? {
            self.cut(before, &pod)?;
        }
        Ok(())
    }

    /// Labels a pod, and takes away what it is to lose, in one patch.
    fn cut(&self, before: &Value, pod: &Value) -> Result<(), Failure> {
        let mut labels = json!({ text(before, "label"): "true" });
        lost_of(pod).for_each(|(key, _)| labels[key] = Value::Null);
        let mut changed = json!({ "metadata": { "uid": pod["uid"], "labels": labels } });
        if !pod["note"].is_null() {
            changed["metadata"]["annotations"] = json!({ LOST: pod["note"] });
        }
        let answer = self.ask("PATCH", text(pod, "path"), MERGE, Some(&changed))?;
        match answer.status {
            // 409: another pod has the name now.
            404 | 409 => Ok(()),
            _ => answer.ok(self.http.url()).map(drop),
        }
    }

    /// Pods of the account that have started since. Each will have a note, by which it is known that it was labelled: one
    /// that has it and no label any more was given back by somebody.
    fn later_pods(&self, before: &Value, mut later: Vec<Value>) -> Result<Vec<Value>, Failure> {
        let known: BTreeSet<&str> = pods(before).map(|pod| text(pod, "uid")).collect();
        later.retain(|pod| {
            let meta = &pod["metadata"];
            let is_new = !known.contains(uid_of(pod)) && meta["labels"][text(before, "label")].is_null();
            is_new && meta["annotations"][LOST].is_null() && is_running(pod) && pod["spec"]["hostNetwork"] != true
        });
        later.truncate(MOST_PODS);
        if later.is_empty() {
            return Ok(later);
        }
        let is_plain = text(&before["policy"], "kind") == "NetworkPolicy";
        let others = if self.replace_labels && is_plain {
            Others::new(self.list(text(before, "in"))?)
        } else {
            Others::default()
        };
        let kept = later.iter().map(|pod| {
            let mut kept = of_pod(pod, &others.selecting(&pod["metadata"]["labels"]));
            if kept["note"].is_null() {
                kept["note"] = json!("{}");
            }
            kept
        });
        Ok(kept.collect())
    }

    /// The pods that are there now: all of the account where all are meant, else those of the order, not what has their
    /// names now. As one list where they may be many.
    fn pods_there(&self, before: &Value) -> Result<Vec<Value>, Failure> {
        let of = &before["all"];
        if !of.is_null() {
            return self.pods_by(text(of, "namespace"), text(of, "account"));
        }
        let mut there = Vec::new();
        for pod in pods(before) {
            there.extend(self.get(text(pod, "path"))?.filter(|is| uid_of(is) == text(pod, "uid")));
        }
        Ok(there)
    }

    pub(super) fn look_at_isolation(&self, before: &Value) -> Result<Effect, Failure> {
        let policy = self.policy_of(before)?;
        if policy.is_none_or(|policy| !is_ours(&policy, before) || is_changed(&policy)) {
            return Ok(Effect::Absent);
        }
        let there = self.pods_there(before)?;
        if beside(before, &there).any(|(pod, is)| !is_cut(is, before, pod)) {
            return Ok(Effect::Absent);
        }
        Ok(if self.later_pods(before, there)?.is_empty() { Effect::InPlace } else { Effect::Partial })
    }

    pub(super) fn release(&self, before: &Value) -> Result<Undone, Failure> {
        let policy = self.policy_of(before)?.filter(|policy| is_ours(policy, before));
        if policy.as_ref().is_some_and(is_changed) {
            let (policy, label) = (path_of(before), text(before, "label"));
            let why =
                format!("{policy} was changed by somebody else: it is left; delete it, and take {label} off its pods");
            return Ok(Undone::Foreign(why));
        }
        let (mut foreign, there) = (Vec::new(), self.pods_there(before)?);
        for (pod, is) in beside(before, &there) {
            if !self.release_pod(before, pod, is)? {
                foreign.push(text(pod, "path").trim_start_matches("/api/v1/namespaces/").to_owned());
            }
        }
        let known: BTreeSet<&str> = pods(before).map(|pod| text(pod, "uid")).collect();
        let later = there.iter().filter(|is| !known.contains(uid_of(is)));
        for is in later.filter(|is| is["metadata"]["labels"][text(before, "label")] == "true") {
            self.release_pod(before, &of_pod(is, &Map::new()), is)?;
        }
        if let Some(policy) = policy {
            let meta = &policy["metadata"];
            let options = json!({ "apiVersion": "v1", "kind": "DeleteOptions",
                "preconditions": { "uid": meta["uid"], "resourceVersion": meta["resourceVersion"] } });
            let answer = self.ask("DELETE", &path_of(before), "application/json", Some(&options))?;
            match answer.status {
                404 => {}
                409 => {
                    return Err(Failure::again(format!("{} was changed just now; it is read again", path_of(before))));
                }
                _ => drop(answer.ok(self.http.url())?),
            }
        }
        if foreign.is_empty() {
            return Ok(Undone::Restored);
        }
        let foreign = foreign.join(", ");
        let why =
            format!("its labels were changed by somebody else, and are left: {foreign}; {LOST} has those it lost");
        Ok(Undone::Foreign(why))
    }

    /// Gives a pod its labels back; false where somebody else has changed them.
    fn release_pod(&self, before: &Value, pod: &Value, is: &Value) -> Result<bool, Failure> {
        let (meta, label) = (&is["metadata"], text(before, "label"));
        if !is_cut(is, before, pod) {
            // As one that was given back before a kill looks.
            let is_back = lost_of(pod).all(|(key, value)| meta["labels"][key] == *value);
            return Ok(meta["labels"][label].is_null() && is_back);
        }
        let mut labels = json!({ label: Value::Null });
        let mut changed = json!({ "metadata": { "uid": meta["uid"], "resourceVersion": meta["resourceVersion"] } });
        let ours = |key: &&String| key.starts_with(ISOLATED) && *key != label;
        let is_last = meta["labels"].as_object().is_none_or(|labels| labels.keys().find(ours).is_none());
        let note = text(&meta["annotations"], LOST);
        // Whoever stands on the same pod still needs it without them, and gives them back.
        if is_last && !note.is_empty() {
            let Ok(Value::Object(lost)) = serde_json::from_str(note) else { return Ok(false) };
            lost.into_iter().for_each(|(key, value)| labels[key] = value);
            changed["metadata"]["annotations"] = json!({ LOST: null });
        }
        changed["metadata"]["labels"] = labels;
        let answer = self.ask("PATCH", text(pod, "path"), MERGE, Some(&changed))?;
        match answer.status {
            404 => Ok(true),
            409 => Err(Failure::again(format!("{} was changed just now; it is read again", text(pod, "path")))),
            _ => answer.ok(self.http.url()).map(|_| true),
        }
    }

    fn policy_of(&self, before: &Value) -> Result<Option<Value>, Failure> {
        self.get(&path_of(before))
    }

    pub(super) fn survives_isolation(before: &Value) -> String {
        let words =
            |of: &str| before[of].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
        let mut survives = Vec::new();
        let (open, unbound) = (words("open"), words("unbound"));
        if !open.is_empty() {
            survives.push(format!("not isolated by {}, as network policies only add up", few(&open)));
        }
        if !unbound.is_empty() {
            survives.push(format!("{} in their node's network, which no policy binds", few(&unbound)));
        }
        survives.push(
            match text(&before["policy"], "kind") {
                "CiliumNetworkPolicy" => "calls between the pod and its own node",
                "ClusterNetworkPolicy" => "calls from nodes and from outside the cluster",
                "AdminNetworkPolicy" => "calls from nodes, and all calls from and to outside the cluster",
                _ => "calls from its own node",
            }
            .to_owned(),
        );
        let reachable = words("reachable");
        if !reachable.is_empty() {
            survives.push(format!("calls to {}, as far as other policies let it", reachable.join(", ")));
        }
        if before["by_account"] != true && !before["all"].is_null() {
            survives.push("pods that start later, until they are found within 10 s".to_owned());
        }
        if pods(before).any(|pod| lost_of(pod).next().is_some()) {
            let why =
                "its ReplicaSet starts another in its place, and Services leave it out, as it has lost their labels";
            survives.push(why.to_owned());
        }
        survives.push("open connections, with most network plugins".to_owned());
        survives.join("; ")
    }
}

/// What is kept of a pod: where it is, which it is, and the labels that it is to lose.
fn of_pod(pod: &Value, lost: &Map<String, Value>) -> Value {
    let meta = &pod["metadata"];
    let path = format!("/api/v1/namespaces/{}/pods/{}", in_url(text(meta, "namespace")), in_url(text(meta, "name")));
    let mut note = Value::Null;
    if !lost.is_empty() {
        // Together with those that it has lost to another decision.
        let mut all: Map<String, Value> = serde_json::from_str(text(&meta["annotations"], LOST)).unwrap_or_default();
        all.extend(lost.clone());
        note = Value::String(Value::Object(all).to_string());
    }
    json!({ "path": path, "uid": meta["uid"], "lost": lost, "note": note })
}

fn is_running(pod: &Value) -> bool {
    !matches!(text(&pod["status"], "phase"), "Succeeded" | "Failed")
}

fn few(names: &[&str]) -> String {
    let named = names.iter().take(FEW).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(FEW) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn at(order: &Order) -> String {
    order.subject.instance.as_ref().map_or_else(String::new, |instance| format!(" at {instance}"))
}

fn pods(before: &Value) -> impl Iterator<Item = &Value> {
    before["pods"].as_array().into_iter().flatten()
}

fn uid_of(is: &Value) -> &str {
    text(&is["metadata"], "uid")
}

/// What is kept of each pod of an order beside the pod as it is, of those that are there.
fn beside<'a>(before: &'a Value, there: &'a [Value]) -> impl Iterator<Item = (&'a Value, &'a Value)> {
    let by_uid: BTreeMap<&str, &Value> = there.iter().map(|is| (uid_of(is), is)).collect();
    pods(before).filter_map(move |pod| Some((pod, *by_uid.get(text(pod, "uid"))?)))
}

fn lost_of(pod: &Value) -> impl Iterator<Item = (&String, &Value)> {
    pod["lost"].as_object().into_iter().flatten()
}

fn path_of(before: &Value) -> String {
    format!("{}/{}", text(before, "in"), in_url(text(&before["policy"]["metadata"], "name")))
}

fn is_ours(policy: &Value, before: &Value) -> bool {
    let meta = &policy["metadata"];
    let ours = &before["policy"]["metadata"]["annotations"][DECISION];
    meta["labels"][MANAGED_BY] == "qualm" && meta["annotations"][DECISION] == *ours
}

/// Whether somebody has changed what it says: the API server counts that.
fn is_changed(policy: &Value) -> bool {
    policy["metadata"]["generation"].as_u64().is_some_and(|generation| generation > 1)
}

/// Whether a pod has our label and has lost what it was to lose.
fn is_cut(is: &Value, before: &Value, pod: &Value) -> bool {
    let labels = &is["metadata"]["labels"];
    labels[text(before, "label")] == "true" && lost_of(pod).all(|(key, _)| labels[key].is_null())
}
