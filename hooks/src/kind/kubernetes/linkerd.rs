//! Linkerd: an identity taken out of the lists of `MeshTLSAuthentication`s, and put back.
//!
//! Linkerd has no deny: whoever is in no list that a server's policy asks for is refused there. Only objects are rewritten
//! that their owner has opened to this by a label. The list as it was stands in an annotation, and so does what we left,
//! by which a change of somebody else's is recognised: then nothing is put back.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Kubernetes, MERGE, policy::name_of, text};
use crate::{
    hook::{Effect, Failure, Found, Undone},
    order::Order,
    template::{Escape, in_url},
};

const API: &str = "/apis/policy.linkerd.io/v1alpha1";
/// The label by which an owner opens an object to being rewritten.
const OPT_IN: &str = "qualm/managed";
const ORIGINAL: &str = "qualm/original";
const WRITTEN: &str = "qualm/written";
/// Lists may not be empty; this is nobody's identity.
const NOBODY: &str = "nobody.qualm.invalid";
const LISTS: [&str; 2] = ["identities", "identityRefs"];
/// Objects that one order rewrites at most.
const MOST: usize = 1_000;

impl Kubernetes {
    pub(super) fn read_lists(&self, order: &Order) -> Result<Found, Failure> {
        let (namespace, account) = self.account_of(order)?;
        let identity = self.identity.fill(order, "", Escape::None);
        let identity = identity.map_err(|name| Failure::Refused(format!("{} has no {name}", order.subject)))?;
        if self.get(API)?.is_none() {
            let why = "has no policy.linkerd.io/v1alpha1: install Linkerd's policy definitions, or take the hook away";
            return Err(Failure::Refused(format!("{} {why}", self.http.url())));
        }
        let found = self.opted_in()?;
        let who = json!({ "identity": identity, "namespace": namespace, "account": account });
        let (mut objects, mut wild) = (Vec::new(), Vec::new());
        for object in &found {
            let place = text(&object["metadata"], "namespace");
            let name = name_of(object);
            wild.extend(wildcards(&object["spec"], &who, place).map(|entry| format!("{name} by {entry}")));
            if without(&object["spec"], &who, place).is_some() {
                objects.push(of_object(object));
            }
        }
        if objects.is_empty() {
            let wild =
                if wild.is_empty() { String::new() } else { format!("; {} cannot leave one out", wild.join(", ")) };
            return Ok(Found::Nothing(format!("no MeshTLSAuthentication with {OPT_IN}=true names {identity}{wild}")));
        }
        if objects.len() > MOST {
            return Ok(Found::Nothing(format!("{} lists name {identity}: too many to be rewritten", objects.len())));
        }
        let name = format!("{identity} in {} lists of Linkerd's", objects.len());
        Ok(Found::Target { name, before: json!({ "who": who, "objects": objects, "wild": wild }) })
    }

    /// Every list that its owner has opened to this.
    fn opted_in(&self) -> Result<Vec<Value>, Failure> {
        let selector = in_url(&format!("{OPT_IN}=true"));
        self.list(&format!("{API}/meshtlsauthentications?labelSelector={selector}"))
    }

    /// Lists that have come since.
    fn later_lists(&self, before: &Value, is_meant: impl Fn(&Value) -> bool) -> Result<Vec<Value>, Failure> {
        let known: BTreeSet<&str> = objects(before).map(|of| text(of, "uid")).collect();
        let mut later = self.opted_in()?;
        later.retain(|object| !known.contains(text(&object["metadata"], "uid")) && is_meant(object));
        later.truncate(MOST);
        Ok(later.iter().map(of_object).collect())
    }

    /// Those of them that name the account, unless somebody else has changed what we left.
    fn uncovered(&self, before: &Value) -> Result<Vec<Value>, Failure> {
        self.later_lists(before, |object| {
            let place = text(&object["metadata"], "namespace");
            let is_ours = notes_of(object).is_none_or(|(_, written)| written == object["spec"]);
            is_ours && without(&object["spec"], &before["who"], place).is_some()
        })
    }

    pub(super) fn unlist(&self, before: &Value) -> Result<(), Failure> {
        let later = self.uncovered(before)?;
        for of in objects(before).chain(&later) {
            let Some(object) = self.object(of)? else { continue };
            let spec = &object["spec"];
            let Some(rest) = without(spec, &before["who"], text(of, "namespace")) else { continue };
            let notes = match notes_of(&object) {
                Some((_, written)) if written == *spec => json!({ WRITTEN: rest.to_string() }),
                // Somebody has changed what we left: it stays known as changed.
                Some(_) => json!({}),
                None => json!({ ORIGINAL: spec.to_string(), WRITTEN: rest.to_string() }),
            };
            self.rewrite(of, &object, &rest, &notes)?;
        }
        Ok(())
    }

    pub(super) fn look_at_lists(&self, before: &Value) -> Result<Effect, Failure> {
        for of in objects(before) {
            let object = self.object(of)?;
            let lists = |object: Value| without(&object["spec"], &before["who"], text(of, "namespace")).is_some();
            if object.is_some_and(lists) {
                return Ok(Effect::Absent);
            }
        }
        Ok(if self.uncovered(before)?.is_empty() { Effect::InPlace } else { Effect::Partial })
    }

    pub(super) fn list_again(&self, before: &Value) -> Result<Undone, Failure> {
        let mut foreign = Vec::new();
        let later = self.later_lists(before, |object| {
            let place = text(&object["metadata"], "namespace");
            notes_of(object).is_some_and(|(original, _)| without(&original, &before["who"], place).is_some())
        })?;
        for of in objects(before).chain(&later) {
            let Some(object) = self.object(of)? else {
                foreign.push(format!("{} was deleted", text(of, "name")));
                continue;
            };
            let (spec, who, place) = (&object["spec"], &before["who"], text(of, "namespace"));
            let Some((original, written)) = notes_of(&object) else {
                // As one that was given back before a kill looks.
                if without(spec, who, place).is_none() {
                    foreign.push(format!("{} has lost its annotations", text(of, "name")));
                }
                continue;
            };
            if written != *spec || object["metadata"]["labels"][OPT_IN] != "true" {
                foreign.push(format!("{} was changed; {ORIGINAL} has its list as it was", text(of, "name")));
                continue;
            }
            let back = with(&original, spec, who, place);
            let notes = if back == original {
                json!({ ORIGINAL: null, WRITTEN: null })
            } else {
                json!({ WRITTEN: back.to_string() })
            };
            self.rewrite(of, &object, &back, &notes)?;
        }
        if foreign.is_empty() {
            return Ok(Undone::Restored);
        }
        Ok(Undone::Foreign(format!("by somebody else, and is left so: {}", foreign.join(", "))))
    }

    fn object(&self, of: &Value) -> Result<Option<Value>, Failure> {
        Ok(self.get(text(of, "path"))?.filter(|object| object["metadata"]["uid"] == of["uid"]))
    }

    /// Writes a list and what is noted of it in one patch of the version that was read.
    fn rewrite(&self, of: &Value, object: &Value, spec: &Value, notes: &Value) -> Result<(), Failure> {
        let meta = &object["metadata"];
        let changed = json!({
            "metadata": { "uid": meta["uid"], "resourceVersion": meta["resourceVersion"], "annotations": notes },
            "spec": { LISTS[0]: spec[LISTS[0]], LISTS[1]: spec[LISTS[1]] },
        });
        let answer = self.ask("PATCH", text(of, "path"), MERGE, Some(&changed))?;
        match answer.status {
            409 => Err(Failure::again(format!("{} was changed just now; it is read again", text(of, "name")))),
            _ => answer.ok(self.http.url()).map(drop),
        }
    }
}

/// What is not cut by it.
pub(super) fn survives(before: &Value) -> String {
    let wild: Vec<&str> = before["wild"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut survives = "servers that no such list guards, and lists without the label; open connections".to_owned();
    if !wild.is_empty() {
        survives = format!("not enforceable: {} allow it among others; {survives}", wild.join(", "));
    }
    survives
}

fn objects(before: &Value) -> impl Iterator<Item = &Value> {
    before["objects"].as_array().into_iter().flatten()
}

/// What is kept of a list: where it is, and which it is.
fn of_object(object: &Value) -> Value {
    let meta = &object["metadata"];
    let place = text(meta, "namespace");
    let path = format!("{API}/namespaces/{}/meshtlsauthentications/{}", in_url(place), in_url(text(meta, "name")));
    json!({ "path": path, "uid": meta["uid"], "namespace": place, "name": name_of(object) })
}

/// The list as it was before the first of us, and as the last of us has left it.
fn notes_of(object: &Value) -> Option<(Value, Value)> {
    let note = |key: &str| serde_json::from_str(text(&object["metadata"]["annotations"], key)).ok();
    Some((note(ORIGINAL)?, note(WRITTEN)?))
}

/// Whether an entry of a list names this account and nobody else.
fn names(entry: &Value, who: &Value, place: &str) -> bool {
    if let Some(identity) = entry.as_str() {
        return identity == text(who, "identity");
    }
    is_account(entry) && entry["name"] == who["account"] && home(entry, place) == text(who, "namespace")
}

/// The entries that allow this account among others: nobody can be taken out of these.
fn wildcards<'a>(spec: &'a Value, who: &'a Value, place: &'a str) -> impl Iterator<Item = String> + 'a {
    let of_all = move |entry: &Value| {
        if let Some(suffix) = entry.as_str().and_then(|identity| identity.strip_prefix('*')) {
            return text(who, "identity").ends_with(suffix);
        }
        let is_home = home(entry, place) == text(who, "namespace");
        let is_namespace = text(entry, "kind") == "Namespace" && entry["name"] == who["namespace"];
        is_namespace || (is_account(entry) && text(entry, "name").is_empty() && is_home)
    };
    let entries = LISTS.into_iter().flat_map(|list| spec[list].as_array().into_iter().flatten());
    entries
        .filter(move |entry| of_all(entry))
        .map(|entry| entry.as_str().map_or_else(|| entry.to_string(), str::to_owned))
}

fn is_account(entry: &Value) -> bool {
    text(entry, "kind") == "ServiceAccount" && matches!(text(entry, "group"), "" | "core")
}

/// The namespace that a reference means.
fn home<'a>(entry: &'a Value, place: &'a str) -> &'a str {
    entry["namespace"].as_str().unwrap_or(place)
}

/// The lists without an account; `None` where none names it.
fn without(spec: &Value, who: &Value, place: &str) -> Option<Value> {
    let mut entries = LISTS.into_iter().flat_map(|list| spec[list].as_array().into_iter().flatten());
    let is_named = entries.any(|entry| names(entry, who, place));
    is_named.then(|| filtered(spec, |entry, _| !names(entry, who, place)))
}

/// The original lists as far as they stand, and the account.
fn with(original: &Value, spec: &Value, who: &Value, place: &str) -> Value {
    filtered(original, |entry, list| {
        names(entry, who, place) || spec[list].as_array().is_some_and(|of| of.contains(entry))
    })
}

/// Lists with some of their entries. A list that has none is left out; where both have none, it is nobody's.
fn filtered(spec: &Value, keep: impl Fn(&Value, &str) -> bool) -> Value {
    let mut lists = json!({});
    for list in LISTS {
        let kept = spec[list].as_array().into_iter().flatten().filter(|entry| keep(entry, list));
        let kept: Vec<&Value> = kept.collect();
        if !kept.is_empty() {
            lists[list] = json!(kept);
        }
    }
    if lists.as_object().is_some_and(serde_json::Map::is_empty) {
        lists = json!({ LISTS[0]: [NOBODY] });
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;

    const CART: &str = "cart.shop.serviceaccount.identity.linkerd.cluster.local";

    fn who() -> Value {
        json!({ "identity": CART, "namespace": "shop", "account": "cart" })
    }

    #[test]
    fn one_is_taken_out_of_a_list_and_comes_back_where_it_was() {
        let original = json!({ "identities": ["a.x", CART, "b.x"] });
        let rest = without(&original, &who(), "shop").expect("it is named");
        assert_eq!(rest, json!({ "identities": ["a.x", "b.x"] }));
        assert_eq!(without(&rest, &who(), "shop"), None);
        assert_eq!(with(&original, &rest, &who(), "shop"), original);
        // Another of us has taken out another meanwhile.
        assert_eq!(
            with(&original, &json!({ "identities": ["b.x"] }), &who(), "shop"),
            json!({ "identities": [CART, "b.x"] })
        );
    }

    #[test]
    fn a_list_of_one_becomes_a_list_of_nobody() {
        let original = json!({ "identityRefs": [{ "kind": "ServiceAccount", "name": "cart" }] });
        let rest = without(&original, &who(), "shop").expect("it is named");
        assert_eq!(rest, json!({ "identities": [NOBODY] }));
        assert_eq!(with(&original, &rest, &who(), "shop"), original);
        assert_eq!(without(&original, &who(), "bank"), None, "the account of that name in another namespace");
    }

    #[test]
    fn what_allows_it_among_others_is_told() {
        let spec = json!({ "identities": ["*.shop.serviceaccount.identity.linkerd.cluster.local", "*.bank.x", "*"],
            "identityRefs": [{ "kind": "Namespace", "name": "shop" }] });
        let wild: Vec<String> = wildcards(&spec, &who(), "bank").collect();
        assert_eq!(wild.len(), 3, "{wild:?}");
        assert_eq!(without(&spec, &who(), "bank"), None);
    }
}
