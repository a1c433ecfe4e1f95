//! Deny rules: one beside each rule that allows the principal something, and nowhere else.
//!
//! Where everybody may use what has no rule (`allow.everyone.if.no.acl.found`), the first rule about something closes it
//! to everybody. A rule beside one that is there already changes nothing for others.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::{Value, json};

use super::{
    Kafka,
    wire::{
        ALL, ALLOW, Acl, DENY, Resource, create_acls, created_acls, delete_acls, deleted_acls, describe_acls,
        described_acls,
    },
};
use crate::{
    hook::{Effect, Failure, Found, Undone},
    order::Order,
};

/// Every host, and every principal of the type.
const EVERY: &str = "*";
/// Rules that one order makes at most.
const MOST: usize = 1_000;
/// A principal that nobody is: what would be allowed is asked about it.
const NOBODY: &str = "User:qualm-asks-whether-it-may";

impl Kafka {
    pub(super) fn read_rules(&self, order: &Order) -> Result<Found, Failure> {
        let principal = self.principal_of(order)?;
        let host = match &order.subject.instance {
            None => EVERY.to_owned(),
            Some(instance) if instance.parse::<IpAddr>().is_ok() => instance.clone(),
            Some(instance) => {
                return Err(Failure::Refused(format!("{instance} is no address, as rules of Kafka's need")));
            }
        };
        let own = self.brokers.call(&describe_acls(&principal), described_acls)?;
        let kind = principal.split_once(':').map(|(kind, _)| kind).unwrap_or_default();
        let of_all = self.brokers.call(&describe_acls(&format!("{kind}:{EVERY}")), described_acls)?;
        let denied: BTreeSet<&Resource> =
            own.iter().filter(|rule| is_denial(rule, &host)).map(|of| &of.resource).collect();
        let applies =
            |rule: &&Acl| rule.permission == ALLOW && (rule.host == EVERY || host == EVERY || rule.host == host);
        let allowed: BTreeSet<&Resource> =
            own.iter().chain(&of_all).filter(applies).map(|rule| &rule.resource).collect();
        let missing: Vec<&&Resource> = allowed.difference(&denied).collect();
        if allowed.is_empty() {
            return Ok(Found::Nothing(format!(
                "no rule allows {principal} anything: it is a super user, unknown, or uses what everybody may use"
            )));
        }
        if missing.is_empty() {
            return Ok(Found::Nothing(format!(
                "{principal} is denied all that already, by rules that are not Qualm's"
            )));
        }
        if missing.len() > MOST {
            return Ok(Found::Nothing(format!("{} rules allow {principal} something: too many", missing.len())));
        }
        let at = if host == EVERY { String::new() } else { format!(" from {host}") };
        let before = json!({ "principal": principal, "host": host, "deny": missing });
        Ok(Found::Target { name: format!("{principal}{at}"), before })
    }

    pub(super) fn deny(&self, before: &Value) -> Result<(), Failure> {
        let rules = rules(before);
        self.brokers.call(&create_acls(rules.iter()), created_acls)
    }

    pub(super) fn look_at_rules(&self, before: &Value) -> Result<Effect, Failure> {
        let rules = rules(before);
        let Some(first) = rules.first() else { return Ok(Effect::InPlace) };
        let are = self.brokers.call(&describe_acls(&first.principal), described_acls)?;
        Ok(if rules.iter().all(|rule| are.contains(rule)) { Effect::InPlace } else { Effect::Absent })
    }

    pub(super) fn allow_again(&self, before: &Value) -> Result<Undone, Failure> {
        let rules = rules(before);
        let deleted = self.brokers.call(&delete_acls(rules.iter()), deleted_acls)?;
        if deleted == 0 {
            return Ok(Undone::Nothing("its deny rules are gone already".to_owned()));
        }
        Ok(Undone::Restored)
    }

    /// Asks for the rules of nobody, and has those deleted, of which there are none.
    pub(super) fn probe_rules(&self) -> Result<(), Failure> {
        self.brokers.call(&describe_acls(NOBODY), described_acls)?;
        let resource = Resource { kind: 2, name: "qualm-asks-whether-it-may".to_owned(), pattern: 3 };
        let rule =
            Acl { resource, principal: NOBODY.to_owned(), host: EVERY.to_owned(), operation: ALL, permission: DENY };
        self.brokers.call(&delete_acls([rule].iter()), deleted_acls).map(drop)
    }
}

fn is_denial(rule: &Acl, host: &str) -> bool {
    rule.permission == DENY && rule.operation == ALL && rule.host == host
}

/// The rules that an effect has made.
fn rules(before: &Value) -> Vec<Acl> {
    let resources: Vec<Resource> = serde_json::from_value(before["deny"].clone()).unwrap_or_default();
    let text = |key: &str| before[key].as_str().unwrap_or_default().to_owned();
    let rule =
        |resource| Acl { resource, principal: text("principal"), host: text("host"), operation: ALL, permission: DENY };
    resources.into_iter().map(rule).collect()
}
