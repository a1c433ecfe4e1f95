//! Ports on loopback for processes that must be told theirs before they start.

use std::{
    net::{Ipv4Addr, TcpListener},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the kernel's range of ephemeral ports, so that no outgoing connection takes one in between.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Apart in this process; processes start at different places and see each other's listeners.
static TAKEN: AtomicU16 = AtomicU16::new(0);

/// A port of 127.0.0.1 that nobody listens on.
pub(crate) fn free() -> u16 {
    let start = u16::try_from(process::id().wrapping_mul(97) % u32::from(COUNT)).expect("below COUNT");
    for _ in 0..COUNT {
        let step = TAKEN.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port of 127.0.0.1 from {FIRST} on is free");
}
