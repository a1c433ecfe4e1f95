//! Names of pods, as Kubernetes gives them.

use super::{Kind, Service};
use crate::random::scramble;

/// The letters and digits of which Kubernetes makes up names: no vowels, and nothing that looks like another
/// (`k8s.io/apimachinery`, `util/rand`).
const MADE_UP: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Of the suffix of a pod.
const SUFFIX: usize = 5;
/// The first of April 2026, in minutes since 1970: about when the Jobs of CronJobs were due.
const DUE: u64 = 29_583_360;

/// The name of the `number`th pod of `service` that runs `minor`; `seed` is the mesh's.
///
/// Databases, brokers and what else is a StatefulSet have the number itself, a CronJob's pods the minute at which their
/// Job was due, and all others the hash of their version's ReplicaSet.
pub(super) fn name(seed: u64, service: &Service, id: u32, minor: u32, number: u32) -> String {
    let own = scramble(seed ^ scramble(u64::from(id) << 32 | u64::from(number)));
    let name = &service.name;
    match service.kind {
        Kind::Database | Kind::Broker | Kind::Vault | Kind::Kubernetes => format!("{name}-{number}"),
        Kind::Cron => format!("{name}-{}-{}", DUE + own % 1_440, suffix(scramble(own))),
        _ => {
            let template = scramble(seed ^ scramble(u64::from(id) << 32 | u64::from(minor)) ^ 1);
            format!("{name}-{}-{}", hash(template as u32), suffix(scramble(own)))
        }
    }
}

/// A ReplicaSet's: the decimal digits of its template's hash, each by its byte (`SafeEncodeString`); at least eight, as
/// nearly all are.
fn hash(template: u32) -> String {
    let decimal = template.max(10_000_000).to_string();
    decimal.bytes().map(|digit| char::from(MADE_UP[usize::from(digit) % MADE_UP.len()])).collect()
}

/// Five characters, evenly drawn.
fn suffix(mut draw: u64) -> String {
    let mut next = || {
        let character = MADE_UP[(draw % MADE_UP.len() as u64) as usize];
        draw /= MADE_UP.len() as u64;
        char::from(character)
    };
    (0..SUFFIX).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_replica_set_is_written_as_kubernetes_writes_it() {
        // Of `linkerd-destination-7d6c6c7775-49tpt` and `productpage-v1-87d54dd59-fn6vw`.
        assert_eq!(hash(3_827_273_331), "7d6c6c7775");
        assert_eq!(hash(438_108_815), "87d54dd59");
    }
}
