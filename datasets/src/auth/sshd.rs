//! sshd of the nodes, as rsyslog writes it with high-precision times.

use std::io::Write as _;

use super::{AuthRecord, Deed, text::micros};

/// Who may log in to nodes.
const PEOPLE: [&str; 6] = ["alice", "bob", "carol", "dan", "erin", "deploy"];

pub(super) fn push(record: &AuthRecord, out: &mut Vec<u8>) {
    let Deed::Shell { user, node } = record.deed else { return };
    let person = PEOPLE[user as usize % PEOPLE.len()];
    let time = micros(record.at, record.id);
    let (process, port) = (1_000 + record.id % 60_000, 32_768 + record.id % 28_000);
    let _ = if record.granted {
        writeln!(
            out,
            "{} node-{node} sshd[{process}]: Accepted publickey for {person} from {} port {port} ssh2: ED25519 SHA256:{}",
            time.replace('Z', "+00:00"),
            record.address,
            &KEYS[user as usize % KEYS.len()],
        )
    } else {
        writeln!(
            out,
            "{} node-{node} sshd[{process}]: Failed password for {person} from {} port {port} ssh2",
            time.replace('Z', "+00:00"),
            record.address
        )
    };
}

/// Fingerprints of their keys.
const KEYS: [&str; 6] = [
    "q0SYNr1bkGmGk0a1ZzK8mWbCq2tT8eG5nZ9o0n1Kx2c",
    "w7TZOs2clHnHl1b2AaL9nXcDr3uU9fH6oA0p1o2Ly3d",
    "e8UAPt3dmIoIm2c3BbM0oYdEs4vV0gI7pB1q2p3Mz4e",
    "r9VBQu4enJpJn3d4CcN1pZeFt5wW1hJ8qC2r3q4Na5f",
    "t0WCRv5foKqKo4e5DdO2qAfGu6xX2iK9rD3s4r5Ob6g",
    "y1XDSw6gpLrLp5f6EeP3rBgHv7yY3jL0sE4t5s6Pc7h",
];
