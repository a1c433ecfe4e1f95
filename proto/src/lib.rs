//! What is said on the wire: Qualm's own protobuf messages and services.
//!
//! # Layout
//! - [`trust::v1`]: the trust stream, from `proto/qualm/trust/v1/trust.proto`
//! - [`operator::v1`]: what a person asks and decides, from `proto/qualm/operator/v1/operator.proto`
//!
//! The code under `src/generated` is checked in, so that a build needs no protoc and no build script. After a change
//! of a `.proto`, `QUALM_REGENERATE=1 cargo test --release -p qualm-proto` writes it anew; without the variable the
//! same test fails while the two differ.
//!
//! **Invariant:** no logic, and no other crate of the workspace.

/// The definitions themselves, by the names that they import each other by: for whoever reads messages by them.
pub const DEFINITIONS: [(&str, &str); 2] = [
    ("qualm/trust/v1/trust.proto", include_str!("../proto/qualm/trust/v1/trust.proto")),
    ("qualm/operator/v1/operator.proto", include_str!("../proto/qualm/operator/v1/operator.proto")),
];

/// Who is trusted how far, told to enforcement points.
pub mod trust {
    /// Version 1: fields are added, never renumbered or re-used.
    #[allow(missing_docs, unreachable_pub, unused_qualifications)]
    #[allow(clippy::all, clippy::pedantic)]
    pub mod v1 {
        include!("generated/qualm.trust.v1.rs");
    }
}

/// What a person asks and decides.
pub mod operator {
    /// Version 1: fields are added, never renumbered or re-used.
    #[allow(missing_docs, unreachable_pub, unused_qualifications)]
    #[allow(clippy::all, clippy::pedantic)]
    pub mod v1 {
        include!("generated/qualm.operator.v1.rs");
    }
}
