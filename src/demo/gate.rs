//! The enforcement point of the demo: a subscriber of the trust stream that is asked about every call.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Instant,
};

use anyhow::Context;
use qualm_proto::trust::v1::{Level, Mode, Subscription};
use qualm_scorer::enforce::trust_client::{HeldTable, TrustClient};
use tonic::transport::Endpoint;

/// Its name in acknowledgements.
pub(super) const NODE: &str = "demo-gate";

/// What is in force, and since which version each decision has been.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate {
    held: Arc<RwLock<HeldTable>>,
    applied: Arc<Mutex<BTreeMap<String, Applied>>>,
    /// Calls asked for under each decision that limits.
    limited: Arc<Mutex<BTreeMap<String, u64>>>,
}

/// Of a throttled or restricted identity, one call in so many passes.
const ONE_IN: u64 = 10;

/// When a decision came into force here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Applied {
    /// First version of the table with it.
    pub(super) version: u64,
    /// When.
    pub(super) at: Instant,
}

impl Gate {
    /// Subscribes to the trust stream at `address` and follows it in the background.
    pub(super) fn connect(&self, address: SocketAddr) -> anyhow::Result<()> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).context("the address of the trust stream")?;
        let subscription = Subscription { node: NODE.to_owned(), ..Subscription::default() };
        let client = TrustClient::new(endpoint.connect_lazy(), subscription);
        let gate = self.clone();
        tokio::spawn(client.follow(move |table| {
            gate.apply(table);
            Ok(())
        }));
        Ok(())
    }

    fn apply(&self, table: &HeldTable) {
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = table.clone();
        let at = Instant::now();
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        for record in table.standing(at.into()) {
            applied.entry(record.decision_id.clone()).or_insert(Applied { version: table.version(), at });
        }
    }

    /// Whether a call by `principal` from `address` is to be denied, and under which decision. Asked when it begins:
    /// from *quarantined* on every call is, from *throttled* on all but one in ten.
    pub(super) fn denies(&self, principal: &str, address: &str) -> Option<String> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.of(principal, address, tokio::time::Instant::now())
            .filter(|record| record.mode() == Mode::Enforce && record.level() >= Level::Throttled)
            .filter(|record| record.level() >= Level::Quarantined || !self.passes(&record.decision_id))
            .map(|record| record.decision_id.clone())
    }

    fn passes(&self, decision: &str) -> bool {
        let mut limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = limited.entry(decision.to_owned()).or_default();
        *asked += 1;
        asked.is_multiple_of(ONE_IN)
    }

    /// Since when a decision has been in force here.
    pub(super) fn applied(&self, decision: &str) -> Option<Applied> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).get(decision).copied()
    }
}
