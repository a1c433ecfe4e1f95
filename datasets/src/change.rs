//! Honest changes: what happens in every estate without anybody meaning harm.

mod bulk;
mod kind;
mod life;
mod plan;

pub use kind::ChangeKind;

use crate::{calendar::Millis, mesh::ServiceId};

/// An honest change to be put into a [`Scenario`](crate::Scenario).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HonestChange {
    /// What happens.
    pub kind: ChangeKind,
    /// When it begins.
    pub at: Millis,
    /// Which service changes; drawn from the seed where `None`.
    pub service: Option<ServiceId>,
}

impl HonestChange {
    /// A change of a service that suits it.
    pub const fn new(kind: ChangeKind, at: Millis) -> Self {
        Self { kind, at, service: None }
    }

    /// The same of this service.
    #[must_use]
    pub const fn of(mut self, service: ServiceId) -> Self {
        self.service = Some(service);
        self
    }
}
