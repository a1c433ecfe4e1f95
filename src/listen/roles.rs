//! Which SPIFFE IDs may do what.

use std::{fmt, sync::Arc};

use qualm_model::identity::{InvalidSpiffeId, Peer, SpiffeId};
use serde::Deserialize;
use tonic::{Request, Status, service::Interceptor};

use super::ListenConfig;

/// What a peer may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Send telemetry.
    Reporter,
    /// Receive policies over xDS.
    EnforcementPoint,
    /// Subscribe to the trust stream.
    Subscriber,
    /// Have a stream of security event tokens.
    Receiver,
    /// Push security event tokens to us.
    Transmitter,
}

impl Role {
    const ALL: [Self; 5] =
        [Self::Reporter, Self::EnforcementPoint, Self::Subscriber, Self::Receiver, Self::Transmitter];

    /// The key of its list.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Reporter => "reporters",
            Self::EnforcementPoint => "enforcement_points",
            Self::Subscriber => "subscribers",
            Self::Receiver => "receivers",
            Self::Transmitter => "transmitters",
        }
    }
}

/// How much a person may do at the operator's interface; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Authority {
    /// Ask who stands where and why.
    Viewer,
    /// Announce deployments.
    Announcer,
    /// Set levels for a time, and lift them.
    Operator,
    /// Pause all enforcement, and end that.
    Approver,
    /// Set aside what protects.
    Admin,
}

impl Authority {
    /// The key of its list.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Viewer => "viewers",
            Self::Announcer => "announcers",
            Self::Operator => "operators",
            Self::Approver => "approvers",
            Self::Admin => "admins",
        }
    }
}

/// One SPIFFE ID, or all below a prefix: `spiffe://mesh.test/ns/shop/*`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct IdPattern {
    id: SpiffeId,
    reach: Reach,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Exact,
    Below,
}

impl IdPattern {
    /// Whether `id` is meant.
    pub(crate) fn matches(&self, id: &SpiffeId) -> bool {
        match self.reach {
            Reach::Exact => *id == self.id,
            Reach::Below => id.as_str().strip_prefix(self.id.as_str()).is_some_and(|rest| rest.starts_with('/')),
        }
    }
}

impl TryFrom<String> for IdPattern {
    type Error = InvalidSpiffeId;

    fn try_from(text: String) -> Result<Self, InvalidSpiffeId> {
        match text.strip_suffix("/*") {
            Some(prefix) => Ok(Self { id: prefix.parse()?, reach: Reach::Below }),
            None => Ok(Self { id: text.parse()?, reach: Reach::Exact }),
        }
    }
}

impl fmt::Display for IdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.id, if self.reach == Reach::Below { "/*" } else { "" })
    }
}

/// Who is listed for what.
#[derive(Debug)]
pub(crate) struct Roles {
    reporters: Vec<IdPattern>,
    enforcement_points: Vec<IdPattern>,
    subscribers: Vec<IdPattern>,
    receivers: Vec<IdPattern>,
    transmitters: Vec<IdPattern>,
    /// Highest first.
    authorities: [(Authority, Vec<IdPattern>); 5],
}

impl Roles {
    pub(super) fn of(config: &ListenConfig) -> Self {
        Self {
            reporters: config.reporters.clone(),
            enforcement_points: config.enforcement_points.clone(),
            subscribers: config.subscribers.clone(),
            receivers: config.receivers.clone(),
            transmitters: config.transmitters.clone(),
            authorities: [
                (Authority::Admin, config.admins.clone()),
                (Authority::Approver, config.approvers.clone()),
                (Authority::Operator, config.operators.clone()),
                (Authority::Announcer, config.announcers.clone()),
                (Authority::Viewer, config.viewers.clone()),
            ],
        }
    }

    pub(crate) fn allow(&self, role: Role, id: &SpiffeId) -> bool {
        let listed = match role {
            Role::Reporter => &self.reporters,
            Role::EnforcementPoint => &self.enforcement_points,
            Role::Subscriber => &self.subscribers,
            Role::Receiver => &self.receivers,
            Role::Transmitter => &self.transmitters,
        };
        listed.iter().any(|pattern| pattern.matches(id))
    }

    /// Whether `id` may do anything at all; if not, its connection is closed at once.
    pub(super) fn know(&self, id: &SpiffeId) -> bool {
        Role::ALL.into_iter().any(|role| self.allow(role, id)) || self.authority(id).is_some()
    }

    /// The most that `id` may do at the operator's interface; `None` where it may do nothing there.
    pub(crate) fn authority(&self, id: &SpiffeId) -> Option<Authority> {
        let listed = |(_, patterns): &&(Authority, Vec<IdPattern>)| patterns.iter().any(|of| of.matches(id));
        self.authorities.iter().find(listed).map(|(authority, _)| *authority)
    }
}

/// Stands before a service and lets only its role pass.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    role: Role,
    roles: Arc<Roles>,
}

impl Gate {
    pub(super) fn new(role: Role, roles: Arc<Roles>) -> Self {
        Self { role, roles }
    }
}

impl Interceptor for Gate {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        match request.extensions().get::<Peer>() {
            Some(Peer::Loopback) => Ok(request),
            Some(Peer::Verified(id)) if self.roles.allow(self.role, id) => Ok(request),
            Some(Peer::Verified(id)) => {
                let key = self.role.key();
                Err(Status::permission_denied(format!("{id} is not listed in listen.{key} of Qualm's configuration")))
            }
            None => Err(Status::unauthenticated("no verified peer")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> IdPattern {
        IdPattern::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn a_prefix_reaches_what_is_below_it_and_not_its_namesakes() {
        let below = pattern("spiffe://mesh.test/ns/shop/*");
        for (id, meant) in [
            ("spiffe://mesh.test/ns/shop/sa/cart", true),
            ("spiffe://mesh.test/ns/shop", false),
            ("spiffe://mesh.test/ns/shopping/sa/cart", false),
            ("spiffe://other.test/ns/shop/sa/cart", false),
        ] {
            assert_eq!(below.matches(&id.parse().unwrap()), meant, "{id}");
        }
        assert!(pattern("spiffe://mesh.test/*").matches(&"spiffe://mesh.test/x".parse().unwrap()));
        assert!(!pattern("spiffe://mesh.test/a").matches(&"spiffe://mesh.test/a/b".parse().unwrap()));
    }

    #[test]
    fn a_pattern_that_could_mean_too_much_is_refused() {
        for text in ["*", "spiffe://*", "spiffe://mesh.test/a*", "spiffe://mesh.test/*/b", "cart"] {
            assert!(IdPattern::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn each_authority_includes_those_before_it_and_the_highest_counts() {
        let list = |text: &str| vec![pattern(text)];
        let config = ListenConfig {
            viewers: list("spiffe://mesh.test/ns/soc/*"),
            operators: list("spiffe://mesh.test/ns/soc/sa/otto"),
            admins: list("spiffe://mesh.test/ns/soc/sa/ada"),
            subscribers: list("spiffe://mesh.test/ns/gateway/*"),
            ..ListenConfig::default()
        };
        let roles = Roles::of(&config);
        let of = |text: &str| roles.authority(&text.parse().unwrap());
        assert_eq!(of("spiffe://mesh.test/ns/soc/sa/vera"), Some(Authority::Viewer));
        assert_eq!(of("spiffe://mesh.test/ns/soc/sa/otto"), Some(Authority::Operator));
        assert_eq!(of("spiffe://mesh.test/ns/soc/sa/ada"), Some(Authority::Admin));
        assert!(Authority::Admin > Authority::Approver && Authority::Approver > Authority::Operator);
        assert_eq!(of("spiffe://mesh.test/ns/gateway/sa/api"), None, "another role is no authority");
        assert!(roles.know(&"spiffe://mesh.test/ns/soc/sa/vera".parse().unwrap()), "a person may connect");
        assert!(!roles.know(&"spiffe://mesh.test/ns/shop/sa/cart".parse().unwrap()));
    }
}
