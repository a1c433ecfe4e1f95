//! `[[hook]]`: what is to be done elsewhere, with which rights, and how often at most.

use std::time::Duration;

use qualm_model::{
    level::Level,
    time::{Clock, Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use crate::{
    hook::{Hook, Nature},
    kind::{
        aws::{Aws, AwsConfig},
        azure::{Azure, AzureConfig},
        gcp::{Gcp, GcpConfig},
        kafka::{Kafka, KafkaConfig},
        keycloak::{Keycloak, KeycloakConfig},
        kubernetes::{Kubernetes, KubernetesConfig},
        opa::{Opa, OpaConfig},
        spire::{Spire, SpireConfig},
        vault::{Vault, VaultConfig},
        webhook::{Webhook, WebhookConfig},
    },
    ledger::Rules,
};

/// A configured hook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HookConfig {
    /// Its name, in journal, metrics and commands.
    pub name: String,
    /// The lowest level at which it acts.
    pub from: Level,
    /// Nothing is done; what would be done is told.
    pub dry_run: bool,
    /// Every act needs an approver's word.
    pub approval: bool,
    /// Acts within `cap_window_s` at most.
    pub cap: u32,
    /// Seconds.
    pub cap_window_s: u32,
    /// Seconds that one call may take.
    pub timeout_s: u64,
    /// Which orders it acts on.
    pub when: When,
    /// Whether it also acts on what is only a shadow.
    pub in_shadow: bool,
    /// Only identities of this cluster; without it, all.
    pub cluster: Option<String>,
    /// A templated, signed call of one's own.
    pub webhook: Option<WebhookConfig>,
    /// OPA.
    pub opa: Option<OpaConfig>,
    /// Vault.
    pub vault: Option<VaultConfig>,
    /// Keycloak.
    pub keycloak: Option<KeycloakConfig>,
    /// Kubernetes.
    pub kubernetes: Option<KubernetesConfig>,
    /// AWS.
    pub aws: Option<AwsConfig>,
    /// Google Cloud.
    pub gcp: Option<GcpConfig>,
    /// Azure.
    pub azure: Option<AzureConfig>,
    /// SPIRE.
    pub spire: Option<SpireConfig>,
    /// Kafka.
    pub kafka: Option<KafkaConfig>,
}

impl Default for HookConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            from: Level::Quarantined,
            dry_run: true,
            approval: false,
            cap: 10,
            cap_window_s: 3600,
            timeout_s: 5,
            when: When::Always,
            in_shadow: false,
            cluster: None,
            webhook: None,
            opa: None,
            vault: None,
            keycloak: None,
            kubernetes: None,
            aws: None,
            gcp: None,
            azure: None,
            spire: None,
            kafka: None,
        }
    }
}

/// Which orders a hook acts on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// On those of its level and above.
    #[default]
    Always,
    /// On those of them that do not hold: a proxy has served a call that it had acknowledged to deny.
    Leaking,
}

/// A hook that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("[[hook]] {name}: {problem}")]
pub struct InvalidHook {
    /// Which.
    pub name: String,
    /// Which key is wrong, why, and the remedy.
    pub problem: String,
}

impl HookConfig {
    /// The words of the kinds that are configured.
    fn kinds(&self) -> Vec<&'static str> {
        let there = [
            self.webhook.is_some(),
            self.opa.is_some(),
            self.vault.is_some(),
            self.keycloak.is_some(),
            self.kubernetes.is_some(),
            self.aws.is_some(),
            self.gcp.is_some(),
            self.azure.is_some(),
            self.spire.is_some(),
            self.kafka.is_some(),
        ];
        KINDS.into_iter().zip(there).filter(|(_, is_there)| *is_there).map(|(kind, _)| kind).collect()
    }

    /// The kind's word.
    pub fn kind(&self) -> &'static str {
        self.kinds().first().copied().unwrap_or("none")
    }

    /// Whether it can be meant.
    ///
    /// # Errors
    /// It cannot: why, and the remedy.
    pub fn check(&self) -> Result<(), InvalidHook> {
        // No call is made, so no time is needed.
        self.build(&Clock::new(Timestamp::default)).map(drop)
    }

    /// Makes the hook; asks nobody yet.
    ///
    /// # Errors
    /// A key is wrong, or a file that it names cannot be read.
    pub fn build(&self, clock: &Clock) -> Result<Box<dyn Hook>, InvalidHook> {
        let invalid = |problem: String| InvalidHook { name: self.name.clone(), problem };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(is_name) {
            return Err(invalid("name: 1 to 64 letters, digits, `-`, `_` or `.` are needed".to_owned()));
        }
        if !matches!(self.kinds().as_slice(), [_]) {
            let known = KINDS.join(", ");
            return Err(invalid(format!("exactly one of {known} is needed, to say what kind of hook it is")));
        }
        if self.cap == 0 || self.cap_window_s == 0 {
            return Err(invalid(
                "cap: at least 1 act within at least 1 s; to do nothing, set dry_run = true".to_owned(),
            ));
        }
        if !(1..=60).contains(&self.timeout_s) {
            return Err(invalid("timeout_s: from 1 to 60 seconds".to_owned()));
        }
        if self.from == Level::Trusted {
            return Err(invalid("from: nobody is acted against who is trusted; at least \"watched\"".to_owned()));
        }
        let timeout = Duration::from_secs(self.timeout_s);
        let built: Result<Box<dyn Hook>, String> = match self {
            Self { webhook: Some(of), .. } => Webhook::new(of, timeout).map(|hook| Box::new(hook) as _),
            Self { opa: Some(of), .. } => Opa::new(of, timeout).map(|hook| Box::new(hook) as _),
            Self { vault: Some(of), .. } => Vault::new(of, timeout).map(|hook| Box::new(hook) as _),
            Self { keycloak: Some(of), .. } => Keycloak::new(of, timeout).map(|hook| Box::new(hook) as _),
            Self { kubernetes: Some(of), .. } => Kubernetes::new(of, timeout).map(|hook| Box::new(hook) as _),
            Self { aws: Some(of), .. } => Aws::new(of, timeout, clock.clone()).map(|hook| Box::new(hook) as _),
            Self { gcp: Some(of), .. } => Gcp::new(of, timeout).map(|hook| Box::new(hook) as _),
            Self { azure: Some(of), .. } => Azure::new(of, timeout).map(|hook| Box::new(hook) as _),
            Self { spire: Some(of), .. } => Spire::new(of, timeout).map(|hook| Box::new(hook) as _),
            Self { kafka: Some(of), .. } => Kafka::new(of, timeout).map(|hook| Box::new(hook) as _),
            _ => Err("no kind".to_owned()),
        };
        built.map_err(invalid)
    }

    /// What holds for it.
    pub fn rules(&self, nature: Nature) -> Rules {
        Rules {
            kind: self.kind(),
            nature,
            dry_run: self.dry_run,
            approval: self.approval,
            cap: self.cap,
            window: Span::seconds(i64::from(self.cap_window_s)),
        }
    }
}

/// The words of all kinds.
const KINDS: [&str; 10] =
    ["webhook", "opa", "vault", "keycloak", "kubernetes", "aws", "gcp", "azure", "spire", "kafka"];

/// Whether several hooks can be meant together.
///
/// # Errors
/// One cannot, or two have one name.
pub fn check(hooks: &[HookConfig]) -> Result<(), InvalidHook> {
    let mut seen = std::collections::BTreeSet::new();
    for hook in hooks {
        hook.check()?;
        if !seen.insert(&hook.name) {
            let problem = "name: stands twice; each effect belongs to one hook by its name".to_owned();
            return Err(InvalidHook { name: hook.name.clone(), problem });
        }
    }
    Ok(())
}
