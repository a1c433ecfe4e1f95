//! The workload behind the name of a Kubernetes pod.

/// The characters of the parts that Kubernetes makes up: no vowels, and nothing that looks like another.
const MADE_UP: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Of a pod of a ReplicaSet, DaemonSet or Job.
const POD_SUFFIX: usize = 5;
/// Of a ReplicaSet of a Deployment.
const HASH: std::ops::RangeInclusive<usize> = 6..=10;
/// Minutes since 1970 in the name of a CronJob's Job: eight digits from 1989 to 2160.
const SCHEDULED: usize = 8;

/// The workload that a pod of this name is of: without the suffix of the pod, the hash of its ReplicaSet, the time at
/// which its CronJob was due, or the ordinal of its place in a StatefulSet.
///
/// A name that has none of these is the workload's own.
pub fn workload_of_pod(pod: &str) -> &str {
    let Some((name, last)) = pod.rsplit_once('-') else { return pod };
    if name.is_empty() {
        return pod;
    }
    if !last.is_empty() && last.len() <= 4 && last.bytes().all(|c| c.is_ascii_digit()) {
        return name;
    }
    if last.len() != POD_SUFFIX || !is_made_up(last) {
        return pod;
    }
    let Some((workload, middle)) = name.rsplit_once('-') else { return name };
    // A word of these letters without a digit is more often a word: `cart-dns-r7zb9`.
    let is_hash = HASH.contains(&middle.len()) && is_made_up(middle) && middle.bytes().any(|c| c.is_ascii_digit());
    let is_scheduled = middle.len() == SCHEDULED && middle.bytes().all(|c| c.is_ascii_digit());
    if (is_hash || is_scheduled) && !workload.is_empty() { workload } else { name }
}

fn is_made_up(part: &str) -> bool {
    part.bytes().all(|c| MADE_UP.contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_pod_is_the_same_workload() {
        for (pod, workload) in [
            ("cart-7d6c6c7775-49tpt", "cart"),
            ("cart-7d6c6c7775-x2vkq", "cart"),
            ("productpage-v1-87d54dd59-fn6vw", "productpage-v1"),
            ("linkerd-destination-7d6c6c7775-49tpt", "linkerd-destination"),
            ("node-exporter-qx7lz", "node-exporter"),
            ("postgres-0", "postgres"),
            ("kafka-12", "kafka"),
            ("report-28912345-z8x4k", "report"),
            ("migrate-h7bxv", "migrate"),
            ("tempo-tempo-0", "tempo-tempo"),
        ] {
            assert_eq!(workload_of_pod(pod), workload);
        }
    }

    #[test]
    fn a_name_without_made_up_parts_is_the_workloads_own() {
        for name in
            ["cart", "cart-v1", "orders-canary", "api-mysql", "web-nginx", "-", "", "x-", "-49tpt", "report-28912345"]
        {
            assert_eq!(workload_of_pod(name), name);
        }
    }
}
