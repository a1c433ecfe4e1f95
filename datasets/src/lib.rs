//! A seeded generator of a labelled service mesh.
//!
//! # Layout
//! - [`mesh`]: services, replicas, operations, the call graph
//! - [`attack`], [`change`]: what happens in it, with labels ([`label`])
//! - [`scenario`]: a mesh, a stretch of time, and what happens when
//! - [`traffic`]: the calls of a scenario, lazily, in report order
//! - [`auth`]: what the issuers of credentials log beside them
//! - [`istio`]: a call as the proxies' access logs show it
//! - [`dirt`]: what happens to reports before they are read
//! - [`envelope`]: what shippers wrap around a line
//!
//! The same seed gives the same bytes on every machine; no clock and no global randomness is used.

pub mod attack;
pub mod auth;
pub mod calendar;
pub mod call;
pub mod change;
pub mod dirt;
pub mod envelope;
pub mod istio;
pub mod label;
pub mod mesh;
mod random;
mod rhythm;
pub mod scenario;
pub mod traffic;

pub use attack::{Attack, AttackKind};
pub use auth::{AuthLog, AuthRecord, AuthTrail};
pub use calendar::{Millis, Zone};
pub use call::{Call, Cause};
pub use change::{ChangeKind, HonestChange};
pub use dirt::{Dirt, Report, Reports};
pub use envelope::Envelope;
pub use istio::AccessLog;
pub use label::{Label, write_labels};
pub use mesh::{Mesh, MeshConfig};
pub use scenario::{Scenario, Strength};
pub use traffic::Traffic;
