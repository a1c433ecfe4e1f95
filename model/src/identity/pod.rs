//! The workload behind the name of a Kubernetes pod.

/// The characters of the parts that Kubernetes makes up: no vowels, and nothing that looks like another.
const MADE_UP: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Of a pod of a ReplicaSet, DaemonSet or Job.
const POD_SUFFIX: usize = 5;
/// What a hash is written in: decimal digits by their bytes, each one of the characters above.
const OF_HASHES: &[u8] = b"456789bcdf";
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
    // A word of these letters without a digit is more often a word: `cart-dns-r7zb9`. None is of a hash's alone.
    let is_no_word = middle.bytes().any(|c| c.is_ascii_digit()) || middle.bytes().all(|c| OF_HASHES.contains(&c));
    let is_hash = HASH.contains(&middle.len()) && is_made_up(middle) && is_no_word;
    let is_scheduled = middle.len() == SCHEDULED && middle.bytes().all(|c| c.is_ascii_digit());
    if (is_hash || is_scheduled) && !workload.is_empty() { workload } else { name }
}

/// Words by which two versions of one service that run side by side are told apart.
const SIDE_BY_SIDE: [&str; 14] = [
    "canary",
    "primary",
    "stable",
    "baseline",
    "preview",
    "active",
    "blue",
    "green",
    "current",
    "previous",
    "next",
    "old",
    "new",
    "experiment",
];
/// A commit's name in short is at least so long.
const COMMIT: usize = 7;

/// The service that a workload is a version of: without `-v2`, `-1.4.0`, `-canary`, `-blue`, the short name of a commit or
/// the label `version` of its pods at its end, and without such a word at its begin.
///
/// `reviews-v1` and `reviews-v2` are one service, as are `cart` and `cart-canary`; `cart` and `cart-worker` are two.
pub fn service_of_workload<'a>(workload: &'a str, version: &str) -> &'a str {
    let mut service = workload;
    while let Some((before, last)) = service.rsplit_once('-') {
        let is_labelled = !version.is_empty() && last == version;
        if before.is_empty() || !(is_labelled || is_version(last)) {
            break;
        }
        service = before;
    }
    // A version may have a dash of its own.
    let labelled = service.strip_suffix(version).and_then(|before| before.strip_suffix('-'));
    let service = labelled.filter(|before| !version.is_empty() && !before.is_empty()).unwrap_or(service);
    match service.split_once('-') {
        Some((first, rest)) if SIDE_BY_SIDE.contains(&first) && !rest.is_empty() => rest,
        _ => service,
    }
}

fn is_version(part: &str) -> bool {
    let digits = |text: &str| text.bytes().filter(u8::is_ascii_digit).count();
    let is_number = |text: &str| {
        let may = |c: u8| c.is_ascii_digit() || c == b'.';
        text.as_bytes().first().is_some_and(u8::is_ascii_digit) && text.bytes().all(may)
    };
    // `v1`, `v1beta1`, `v1.2.3`.
    let numbered = part.strip_prefix('v').filter(|rest| rest.as_bytes().first().is_some_and(u8::is_ascii_digit));
    let is_commit = part.len() >= COMMIT && part.bytes().all(|c| c.is_ascii_hexdigit()) && digits(part) > 0;
    SIDE_BY_SIDE.contains(&part) || is_number(part) || numbered.is_some() || is_commit
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
            ("search-ddcbbbdcf-gsl6s", "search"),
            ("cart-grpctls-gsl6s", "cart-grpctls"),
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
    fn versions_of_a_service_that_run_side_by_side_are_that_service() {
        for (workload, version, service) in [
            ("reviews-v1", "", "reviews"),
            ("reviews-v2", "v2", "reviews"),
            ("cart-v1beta1", "", "cart"),
            ("cart-canary", "", "cart"),
            ("cart-canary-v2", "", "cart"),
            ("cart-primary", "", "cart"),
            ("canary-cart", "", "cart"),
            ("cart-blue", "", "cart"),
            ("cart-1.4.0", "", "cart"),
            ("cart-1-4-0", "", "cart"),
            ("cart-20261123", "", "cart"),
            ("cart-3f2a9bc", "", "cart"),
            ("cart-spring", "spring", "cart"),
            ("cart-2026-rc", "2026-rc", "cart"),
            ("migrate-17", "", "migrate"),
        ] {
            assert_eq!(service_of_workload(workload, version), service, "{workload}");
        }
    }

    #[test]
    fn what_does_not_name_a_version_is_part_of_the_service() {
        for name in
            ["cart", "cart-worker", "service-a", "v1", "-v1", "canary", "orders-api", "db-facade", "cart-vip", ""]
        {
            assert_eq!(service_of_workload(name, "spring"), name);
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
