//! The kinds of hooks: one system a file.

pub mod aws;
pub mod azure;
pub mod gcp;
pub mod kafka;
pub mod keycloak;
pub mod kubernetes;
pub mod opa;
pub mod spire;
pub mod vault;
pub mod webhook;
