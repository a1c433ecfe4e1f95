//! Attacks: what somebody does who holds a service's identity and is not that service.

mod credential;
mod kind;
mod object;
mod plan;
mod platform;
mod quiet;

pub use kind::AttackKind;

use crate::{calendar::Millis, mesh::ServiceId};

/// An attack to be put into a [`Scenario`](crate::Scenario).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attack {
    /// What is done.
    pub kind: AttackKind,
    /// When its first call begins.
    pub at: Millis,
    /// Whose identity is abused; drawn from the seed where `None`.
    pub actor: Option<ServiceId>,
    /// How much: factor on targets, calls or bytes.
    pub intensity: f64,
    /// How fast: factor on calls a second.
    pub pace: f64,
}

impl Attack {
    /// An attack of usual intensity and pace by an actor that suits it.
    pub const fn new(kind: AttackKind, at: Millis) -> Self {
        Self { kind, at, actor: None, intensity: 1.0, pace: 1.0 }
    }

    /// The same by this service.
    #[must_use]
    pub const fn by(mut self, actor: ServiceId) -> Self {
        self.actor = Some(actor);
        self
    }

    /// The same with so many times the targets, calls or bytes.
    #[must_use]
    pub const fn intensity(mut self, factor: f64) -> Self {
        self.intensity = factor;
        self
    }

    /// The same so many times faster.
    #[must_use]
    pub const fn pace(mut self, factor: f64) -> Self {
        self.pace = factor;
        self
    }
}
