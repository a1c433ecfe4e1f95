//! Kafka: a principal denied by access rules, or slowed down by quotas.
//!
//! # Layout
//! - `rules`: deny rules beside what is allowed
//! - `quotas`: byte rates and request time
//! - `broker`: how brokers are asked, `wire`: in which words

mod broker;
mod quotas;
mod rules;
mod wire;

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::broker::Brokers;
use crate::{
    hook::{Call, Effect, Failure, Found, Hook, Nature, Reach, Repeat, Undone, WayBack, WhenGone},
    order::Order,
    template::{Escape, Template},
};

/// Every principal that a rule can name is of a type; quotas know this one alone.
const USER: &str = "User:";

/// A cluster as it is configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// Host and port of TLS listeners, asked one after the other until one answers.
    pub brokers: Vec<String>,
    /// PEM file with the roots of their certificates; the system's otherwise.
    pub ca_file: Option<PathBuf>,
    /// PEM file with our certificate.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// What is done.
    pub act: KafkaAct,
    /// Who it is for Kafka, as in its authorizer's log: what `ssl.principal.mapping.rules` makes of its certificate.
    pub principal: String,
    /// Bytes a second and broker that it may write; a lower quota stays.
    pub producer_byte_rate: u32,
    /// Bytes a second and broker that it may read; a lower quota stays.
    pub consumer_byte_rate: u32,
    /// Percent of one thread of a broker that it may take; a lower quota stays.
    pub request_percentage: u32,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            ca_file: None,
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            act: KafkaAct::Deny,
            principal: "User:{service}".to_owned(),
            producer_byte_rate: 65_536,
            consumer_byte_rate: 65_536,
            request_percentage: 10,
        }
    }
}

/// What is done at Kafka.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KafkaAct {
    /// Everything that it is allowed is denied.
    #[default]
    Deny,
    /// Its quotas are lowered.
    Quota,
}

/// The hook.
#[derive(Debug)]
pub struct Kafka {
    brokers: Brokers,
    act: KafkaAct,
    principal: Template,
    /// Quotas by their key.
    rates: [(&'static str, f64); 3],
}

impl Kafka {
    /// The hook; asks nothing yet.
    ///
    /// # Errors
    /// Which key is wrong, and why.
    pub fn new(of: &KafkaConfig, timeout: Duration) -> Result<Self, String> {
        let type_of = of.principal.split_once(':').map(|(kind, _)| kind).unwrap_or_default();
        let is_user = of.principal.starts_with(USER);
        if type_of.is_empty() || type_of.contains('{') || (of.act == KafkaAct::Quota && !is_user) {
            return Err(format!("kafka.principal: `{}` must begin with its type, as {USER}", of.principal));
        }
        if of.producer_byte_rate == 0 || of.consumer_byte_rate == 0 || of.request_percentage == 0 {
            return Err("kafka.producer_byte_rate, consumer_byte_rate, request_percentage: at least 1".to_owned());
        }
        Ok(Self {
            brokers: Brokers::new(of, timeout).map_err(|problem| format!("kafka.{problem}"))?,
            act: of.act,
            principal: Template::parse(&of.principal).map_err(|error| format!("kafka.principal: {error}"))?,
            rates: [
                ("producer_byte_rate", f64::from(of.producer_byte_rate)),
                ("consumer_byte_rate", f64::from(of.consumer_byte_rate)),
                ("request_percentage", f64::from(of.request_percentage)),
            ],
        })
    }

    /// The principal of an order.
    fn principal_of(&self, order: &Order) -> Result<String, Failure> {
        let principal = self.principal.fill(order, "", Escape::None);
        let principal = principal.map_err(|name| Failure::Refused(format!("{} has no {name}", order.subject)))?;
        let name = principal.split_once(':').map(|(_, name)| name).unwrap_or_default();
        // Whoever may choose its name must not have everybody denied by it.
        if matches!(name, "" | "*") || principal.len() > 1024 {
            return Err(Failure::Refused(format!("`{principal}` is no single principal of Kafka's")));
        }
        Ok(principal)
    }
}

impl Hook for Kafka {
    fn nature(&self) -> Nature {
        let (latency_ms, cuts, reach) = match self.act {
            KafkaAct::Deny => (50, "everything that rules allow it, from the next request on", Reach::Instance),
            KafkaAct::Quota => (50, "what it writes, reads and asks beyond a rate, at each broker", Reach::Principal),
        };
        let way_back = WayBack::Exact;
        Nature { latency_ms, cuts, reach, way_back, repeat: Repeat::Safe, when_gone: WhenGone::Say(60) }
    }

    fn read(&mut self, order: &Order) -> Result<Found, Failure> {
        match self.act {
            KafkaAct::Deny => self.read_rules(order),
            KafkaAct::Quota => self.read_quotas(order),
        }
    }

    fn act(&mut self, _: &Order, before: &Value, _: &Call) -> Result<(), Failure> {
        match self.act {
            KafkaAct::Deny => self.deny(before),
            KafkaAct::Quota => self.lower(before),
        }
    }

    fn look(&mut self, _: &Order, before: &Value) -> Result<Effect, Failure> {
        match self.act {
            KafkaAct::Deny => self.look_at_rules(before),
            KafkaAct::Quota => self.look_at_quotas(before),
        }
    }

    fn undo(&mut self, _: &Order, before: &Value, _: &Call) -> Result<Undone, Failure> {
        match self.act {
            KafkaAct::Deny => self.allow_again(before),
            KafkaAct::Quota => self.raise_again(before),
        }
    }

    fn probe(&mut self) -> Result<String, Failure> {
        match self.act {
            KafkaAct::Deny => self.probe_rules()?,
            KafkaAct::Quota => self.probe_quotas()?,
        }
        Ok(format!("{} answers, and the rights are there", self.brokers.named()))
    }

    fn survives(&self, _: &Order, _: &Value) -> String {
        match self.act {
            KafkaAct::Deny => {
                "super users of the brokers; what a rule allows it later; where everybody may use what has no rule \
                 (allow.everyone.if.no.acl.found), all of that; its open connections, of which every request is refused"
            }
            KafkaAct::Quota => {
                "a window of the quota (10 s) at its full rate, at each broker; client ids that get quotas later"
            }
        }
        .to_owned()
    }
}
