//! Enforcement points. Each owns its own task, so that scoring never waits for one.

use std::future::Future;

use tokio::sync::{mpsc, watch};

use crate::table::{EnforcementReport, SharedTable};

/// A kind of enforcement point.
pub trait Enforcer {
    /// Carries the table to its nodes and reports what they say, until the table's sender is dropped.
    ///
    /// A full or closed `reports` channel must never hold back a push.
    fn run(
        self,
        table: watch::Receiver<SharedTable>,
        reports: mpsc::Sender<EnforcementReport>,
    ) -> impl Future<Output = ()> + Send;
}
