//! Names of workloads, as they stand in the names of their pods.

/// What Kubernetes makes random names of: no vowels, nothing that looks like another letter.
const RANDOM: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Random characters at the end of a pod's name.
const SUFFIX_BYTES: usize = 5;
/// The longest hash of a ReplicaSet's template.
const MAX_HASH_BYTES: usize = 10;

/// The workload that a pod belongs to, by the pod's name: `cart` for `cart-7656cf8794-r7zb9` (Deployment),
/// `cart-r7zb9` (DaemonSet, Job), `cart-28901520-r7zb9` (CronJob) and `cart-0` (StatefulSet). Any other name is a
/// workload's own.
pub fn workload_of_pod(pod: &str) -> &str {
    let Some((head, last)) = pod.rsplit_once('-').filter(|(head, last)| !head.is_empty() && !last.is_empty()) else {
        return pod;
    };
    if last.len() <= 4 && last.bytes().all(|c| c.is_ascii_digit()) {
        return head;
    }
    if last.len() != SUFFIX_BYTES || !is_random(last) {
        return pod;
    }
    match head.rsplit_once('-') {
        Some((workload, hash)) if !workload.is_empty() && (is_hash(hash) || is_schedule(hash)) => workload,
        _ => head,
    }
}

fn is_random(text: &str) -> bool {
    text.bytes().all(|c| RANDOM.contains(&c))
}

/// A word of the alphabet without a digit is more often a word: `cart-dns-r7zb9`.
fn is_hash(text: &str) -> bool {
    (6..=MAX_HASH_BYTES).contains(&text.len()) && is_random(text) && text.bytes().any(|c| c.is_ascii_digit())
}

/// Minutes since 1970.
fn is_schedule(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_pod_is_the_same_workload() {
        for (pod, workload) in [
            ("curl-7656cf8794-r7zb9", "curl"),
            ("productpage-v1-87d54dd59-fn6vw", "productpage-v1"),
            ("ztunnel-x4k8s", "ztunnel"),
            ("backup-28901520-r7zb9", "backup"),
            ("tempo-tempo-0", "tempo-tempo"),
            ("cart-dns-r7zb9", "cart-dns"),
            ("deathstar", "deathstar"),
            ("api-gateway", "api-gateway"),
            ("-r7zb9", "-r7zb9"),
            ("", ""),
        ] {
            assert_eq!(workload_of_pod(pod), workload);
        }
    }
}
