//! Pods: labelled, or deleted; each by its uid, so that a new pod of the same name is not meant.

use serde_json::{Value, json};

use super::{Kubernetes, KubernetesAct, MERGE, text};
use crate::{
    hook::{Effect, Failure, Found, Undone},
    order::Order,
    template::in_url,
};

impl Kubernetes {
    pub(super) fn read_pods(&self, order: &Order) -> Result<Found, Failure> {
        let (namespace, account) = self.account_of(order)?;
        let instance = order.subject.instance.as_deref();
        if instance.is_none() && self.act == KubernetesAct::DeletePod {
            return Ok(Found::Nothing(
                "only the one pod that is meant is ever deleted, never all of a service".to_owned(),
            ));
        }
        let pods = self.pods_of(order, &namespace, &account)?;
        let stored: Vec<Value> = pods
            .iter()
            .map(|pod| {
                let meta = &pod["metadata"];
                let path = format!("/api/v1/namespaces/{}/pods/{}", in_url(&namespace), in_url(text(meta, "name")));
                json!({ "path": path, "uid": meta["uid"], "was": meta["labels"][&self.label] })
            })
            .collect();
        if stored.is_empty() {
            let where_at = instance.map_or_else(String::new, |instance| format!(" at {instance}"));
            return Ok(Found::Nothing(format!("no pod of {namespace}/{account}{where_at}")));
        }
        let name = match stored.as_slice() {
            [pod] => format!("pod {}", text(pod, "path").trim_start_matches("/api/v1/")),
            pods => format!("{} pods of {namespace}/{account}", pods.len()),
        };
        Ok(Found::Target { name, before: json!({ "pods": stored }) })
    }

    /// The pods of an account, or the one that is meant, by its address.
    pub(super) fn pods_of(&self, order: &Order, namespace: &str, account: &str) -> Result<Vec<Value>, Failure> {
        let mut pods = self.pods_by(namespace, account)?;
        if let Some(instance) = order.subject.instance.as_deref() {
            pods.retain(|pod| {
                let more = pod["status"]["podIPs"].as_array().into_iter().flatten();
                text(&pod["status"], "podIP") == instance || more.into_iter().any(|ip| text(ip, "ip") == instance)
            });
        }
        Ok(pods)
    }

    pub(super) fn pods_by(&self, namespace: &str, account: &str) -> Result<Vec<Value>, Failure> {
        let selector = in_url(&format!("spec.serviceAccountName={account}"));
        self.list(&format!("/api/v1/namespaces/{}/pods?fieldSelector={selector}", in_url(namespace)))
    }

    pub(super) fn label(&self, before: &Value) -> Result<(), Failure> {
        pods(before).try_for_each(|pod| self.patch(pod, &json!("true")).map(drop))
    }

    /// Sets the label; false where there is no such pod any more.
    fn patch(&self, pod: &Value, value: &Value) -> Result<bool, Failure> {
        let patch = json!({ "metadata": { "uid": pod["uid"], "labels": { &self.label: value } } });
        let answer = self.ask("PATCH", text(pod, "path"), MERGE, Some(&patch))?;
        // 409: another pod has the name now.
        if matches!(answer.status, 404 | 409) {
            return Ok(false);
        }
        answer.ok(self.http.url()).map(|_| true)
    }

    pub(super) fn delete(&self, before: &Value) -> Result<(), Failure> {
        for pod in pods(before) {
            let options = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
                "preconditions": { "uid": pod["uid"] } });
            let answer = self.ask("DELETE", text(pod, "path"), "application/json", Some(&options))?;
            if !matches!(answer.status, 404 | 409) {
                answer.ok(self.http.url())?;
            }
        }
        Ok(())
    }

    pub(super) fn look_at_pods(&self, before: &Value) -> Result<Effect, Failure> {
        for pod in pods(before) {
            let is = self.get(text(pod, "path"))?.filter(|is| is["metadata"]["uid"] == pod["uid"]);
            let is_in_place = match (is, self.act) {
                (None, _) => true,
                (Some(is), KubernetesAct::Label) => is["metadata"]["labels"][&self.label] == "true",
                (Some(_), _) => false,
            };
            if !is_in_place {
                return Ok(Effect::Absent);
            }
        }
        Ok(Effect::InPlace)
    }

    pub(super) fn unlabel(&self, before: &Value) -> Result<Undone, Failure> {
        let mut left = 0;
        for pod in pods(before) {
            // A label that was not there is `null`, which takes it away.
            left += usize::from(self.patch(pod, &pod["was"])?);
        }
        Ok(if left == 0 { Undone::Nothing("its pods are gone".to_owned()) } else { Undone::Restored })
    }
}

fn pods(before: &Value) -> impl Iterator<Item = &Value> {
    before["pods"].as_array().into_iter().flatten()
}
