//! The pod in the name of its log file: what a shipper knows that adds no metadata of Kubernetes.
//!
//! The kubelet chooses these names, so nobody in a pod has a say in them; but who writes a line can write a key that looks
//! like a shipper's. So a path counts only of an envelope that has the line as a text, and after metadata.

use crate::parse::Origin;

/// Of a container: `<pod>_<namespace>_<container>-<id>.log`, all of them in one folder.
const CONTAINERS: &str = "var/log/containers/";
/// Of a pod: `<namespace>_<pod>_<uid>/<container>/0.log`.
const PODS: &str = "var/log/pods/";
/// Both as a tag of Fluent Bit's, with dots for slashes.
const TAGGED_CONTAINERS: &str = "var.log.containers.";
const TAGGED_PODS: &str = "var.log.pods.";
/// Hex digits of a container's id.
const ID: usize = 64;
/// A UUID; static pods have a hash of 32 hex digits in its place.
const UIDS: [usize; 2] = [36, 32];

/// Whether a text is the path, or the tag, of a container's log.
pub(super) fn is_of_container(path: &str) -> bool {
    of(path).is_some()
}

/// `origin`, with what the path says that is missing from it. A path of another pod says nothing.
pub(super) fn fill<'a>(origin: Origin<'a>, path: &'a str) -> Origin<'a> {
    if path.is_empty() || !origin.pod.is_empty() && !origin.namespace.is_empty() && !origin.container.is_empty() {
        return origin;
    }
    let Some(own) = of(path) else { return origin };
    let agrees = |known: &str, own: &str| known.is_empty() || known == own;
    let is_same = agrees(origin.pod, own.pod) && agrees(origin.namespace, own.namespace);
    if is_same { origin.or(&own) } else { origin }
}

fn of(path: &str) -> Option<Origin<'_>> {
    let after = |folder: &str| path.rfind(folder).map(|at| &path[at + folder.len()..]);
    after(CONTAINERS)
        .or_else(|| after(TAGGED_CONTAINERS))
        .and_then(of_container)
        .or_else(|| after(PODS).and_then(|rest| of_pod(rest, '/')))
        .or_else(|| after(TAGGED_PODS).and_then(|rest| of_pod(rest, '.')))
}

fn of_container(name: &str) -> Option<Origin<'_>> {
    let mut parts = name.strip_suffix(".log")?.split('_');
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    let (container, id) = container.rsplit_once('-')?;
    let is_one = parts.next().is_none() && id.len() == ID && id.bytes().all(|digit| digit.is_ascii_hexdigit());
    origin(pod, namespace, container).filter(|_| is_one)
}

fn of_pod(rest: &str, separator: char) -> Option<Origin<'_>> {
    let (namespace, rest) = rest.split_once('_')?;
    let (pod, rest) = rest.split_once('_')?;
    let (uid, rest) = rest.split_once(separator)?;
    let (container, file) = rest.split_once(separator)?;
    let is_uid = UIDS.contains(&uid.len()) && uid.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-');
    // `0.log`, and `0.log.20261122-020224` once it was rotated.
    let (count, ending) = file.split_once('.')?;
    let is_log = count.bytes().all(|c| c.is_ascii_digit()) && (ending == "log" || ending.starts_with("log."));
    origin(pod, namespace, container).filter(|_| is_uid && is_log)
}

fn origin<'a>(pod: &'a str, namespace: &'a str, container: &'a str) -> Option<Origin<'a>> {
    let is_name = |name: &str| {
        let is_inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.');
        !name.is_empty() && name.len() <= 253 && name.bytes().all(is_inner)
    };
    let is_sound = [pod, namespace, container].into_iter().all(is_name);
    is_sound.then(|| Origin { pod, namespace, container, ..Origin::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "3b5a1c9d3b5a1c9d3b5a1c9d3b5a1c9d3b5a1c9d3b5a1c9d3b5a1c9d3b5a1c9d";
    const UID: &str = "0b1d5c5e-8c55-4b5e-9f0a-3f2f6b1c7d10";

    fn cart<'a>() -> Origin<'a> {
        Origin { pod: "cart-7d6c6c7775-49tpt", namespace: "shop", container: "istio-proxy", ..Origin::default() }
    }

    #[test]
    fn every_name_of_a_containers_log_tells_pod_namespace_and_container() {
        for path in [
            format!("/var/log/containers/cart-7d6c6c7775-49tpt_shop_istio-proxy-{HASH}.log"),
            format!("/host/var/log/containers/cart-7d6c6c7775-49tpt_shop_istio-proxy-{HASH}.log"),
            format!("kube.var.log.containers.cart-7d6c6c7775-49tpt_shop_istio-proxy-{HASH}.log"),
            format!("/var/log/pods/shop_cart-7d6c6c7775-49tpt_{UID}/istio-proxy/0.log"),
            format!("/var/log/pods/shop_cart-7d6c6c7775-49tpt_{UID}/istio-proxy/12.log.20261122-020224"),
            format!("kube.var.log.pods.shop_cart-7d6c6c7775-49tpt_{UID}.istio-proxy.0.log"),
        ] {
            assert_eq!(fill(Origin::default(), &path), cart(), "{path}");
        }
    }

    #[test]
    fn other_paths_tell_nothing() {
        for path in [
            "",
            "/v1/orders",
            "/var/log/syslog",
            "/var/log/containers/cart_shop_istio-proxy-3b5a.log",
            &format!("/var/log/containers/cart_shop_istio-proxy-{HASH}"),
            &format!("/var/log/containers/cart_shop_x_istio-proxy-{HASH}.log"),
            &format!("/var/log/containers/Cart_shop_istio-proxy-{HASH}.log"),
            &format!("/var/lib/docker/containers/{HASH}/{HASH}-json.log"),
            "/var/log/pods/shop_cart_uid/istio-proxy/0.log",
            &format!("/var/log/pods/shop_cart_{UID}/istio-proxy/x.log"),
            &format!("/var/log/pods/shop_cart_{UID}/0.log"),
        ] {
            assert!(!is_of_container(path), "{path}");
        }
    }

    #[test]
    fn metadata_is_believed_before_the_path_and_a_path_of_another_pod_not_at_all() {
        let path = format!("/var/log/containers/cart-7d6c6c7775-49tpt_shop_istio-proxy-{HASH}.log");
        let known = Origin { container: "cart", ..Origin::default() };
        assert_eq!(fill(known, &path), Origin { container: "cart", ..cart() });
        let other = Origin { pod: "orders-0", ..Origin::default() };
        assert_eq!(fill(other, &path), other);
    }
}
