//! Role bindings: the account is taken out of them, and put back.
//!
//! A binding keeps its other subjects, and its own name and uid; one whose only subject it was stays, empty. Each change
//! names the version that was read, so that nobody else's change is lost.

use serde_json::{Value, json};

use super::{Kubernetes, text};
use crate::{
    hook::{Effect, Failure, Found, Undone},
    order::Order,
    template::in_url,
};

const API: &str = "/apis/rbac.authorization.k8s.io/v1";

impl Kubernetes {
    pub(super) fn read_bindings(&self, order: &Order) -> Result<Found, Failure> {
        let (namespace, account) = self.account_of(order)?;
        let lists = if self.everywhere {
            vec![format!("{API}/rolebindings"), format!("{API}/clusterrolebindings")]
        } else {
            vec![format!("{API}/namespaces/{}/rolebindings", in_url(&namespace))]
        };
        let mut bindings = Vec::new();
        for list in lists {
            for binding in self.list(&list)? {
                let subjects = binding["subjects"].as_array();
                let ours = subjects.into_iter().flatten().find(|of| is_account(of, &namespace, &account));
                if let Some(ours) = ours {
                    let meta = &binding["metadata"];
                    bindings.push(json!({ "path": path(meta), "uid": meta["uid"], "subject": ours }));
                }
            }
        }
        if bindings.is_empty() {
            return Ok(Found::Nothing(format!("no role binding names the service account {namespace}/{account}")));
        }
        let name = format!("{} role bindings of {namespace}/{account}", bindings.len());
        Ok(Found::Target { name, before: json!({ "bindings": bindings }) })
    }

    pub(super) fn unbind(&self, before: &Value) -> Result<(), Failure> {
        for of in bindings(before) {
            let Some(mut binding) = self.get(text(of, "path"))? else { continue };
            let subjects = binding["subjects"].as_array_mut();
            if let Some(subjects) = subjects.filter(|subjects| subjects.contains(&of["subject"])) {
                subjects.retain(|subject| *subject != of["subject"]);
                self.replace(text(of, "path"), &binding)?;
            }
        }
        Ok(())
    }

    fn replace(&self, path: &str, binding: &Value) -> Result<(), Failure> {
        let answer = self.ask("PUT", path, "application/json", Some(binding))?;
        if answer.status == 409 {
            return Err(Failure::again(format!("{path} was changed meanwhile; it is read again")));
        }
        answer.ok(self.http.url()).map(drop)
    }

    pub(super) fn look_at_bindings(&self, before: &Value) -> Result<Effect, Failure> {
        for of in bindings(before) {
            let binding = self.get(text(of, "path"))?.unwrap_or_default();
            if binding["subjects"].as_array().is_some_and(|subjects| subjects.contains(&of["subject"])) {
                return Ok(Effect::Absent);
            }
        }
        Ok(Effect::InPlace)
    }

    pub(super) fn bind_again(&self, before: &Value) -> Result<Undone, Failure> {
        let mut foreign = Vec::new();
        for of in bindings(before) {
            let path = text(of, "path");
            // One of the same name may be another's, with other rights.
            let binding = self.get(path)?.filter(|binding| binding["metadata"]["uid"] == of["uid"]);
            let Some(mut binding) = binding else {
                foreign.push(path.to_owned());
                continue;
            };
            if !binding["subjects"].is_array() {
                binding["subjects"] = json!([]);
            }
            let subjects = binding["subjects"].as_array_mut();
            if let Some(subjects) = subjects.filter(|subjects| !subjects.contains(&of["subject"])) {
                subjects.push(of["subject"].clone());
                self.replace(path, &binding)?;
            }
        }
        if foreign.is_empty() {
            return Ok(Undone::Restored);
        }
        Ok(Undone::Foreign(format!("was deleted meanwhile, and is not made again: {}", foreign.join(", "))))
    }
}

fn bindings(before: &Value) -> impl Iterator<Item = &Value> {
    before["bindings"].as_array().into_iter().flatten()
}

/// A service account, named as such or as the user that it is.
fn is_account(subject: &Value, namespace: &str, account: &str) -> bool {
    match text(subject, "kind") {
        "ServiceAccount" => text(subject, "namespace") == namespace && text(subject, "name") == account,
        "User" => text(subject, "name") == format!("system:serviceaccount:{namespace}:{account}"),
        _ => false,
    }
}

fn path(meta: &Value) -> String {
    let name = in_url(text(meta, "name"));
    match text(meta, "namespace") {
        "" => format!("{API}/clusterrolebindings/{name}"),
        namespace => format!("{API}/namespaces/{}/rolebindings/{name}", in_url(namespace)),
    }
}
