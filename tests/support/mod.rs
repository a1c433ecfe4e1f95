//! What the end-to-end tests stand on: real parts as processes, certificates, callers, and waiting for what must happen.
//!
//! Every process is killed when its value is dropped, and by the kernel when the test dies first. Everything is waited
//! for with a limit, and nothing is asserted about speed.
#![allow(dead_code, reason = "each test binary is compiled with all of it and uses a part")]
#![allow(clippy::print_stderr, reason = "a failed test shows the logs of its processes")]

pub(crate) mod authority;
pub(crate) mod caller;
pub(crate) mod discovery;
pub(crate) mod envoy;
pub(crate) mod estate;
pub(crate) mod feed;
pub(crate) mod istiod;
pub(crate) mod kafka;
pub(crate) mod kubernetes;
pub(crate) mod measure;
pub(crate) mod mesh;
pub(crate) mod operator;
pub(crate) mod parts;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod qualm;
pub(crate) mod registry;
pub(crate) mod relay;
pub(crate) mod upstream;
pub(crate) mod wait;
