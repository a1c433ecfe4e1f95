//! Addresses of requests, as proxies and clients write them.

/// The authority and the path of `http://webapp:7000/x?y`; of a bare path the authority is empty.
pub(super) fn split_url(url: &str) -> (&str, &str) {
    let Some((scheme, rest)) = url.split_once("://") else { return ("", url) };
    if scheme.is_empty() || !scheme.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'+') {
        return ("", url);
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // A name and a password may stand before the host.
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    (host, if path.is_empty() { "/" } else { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_its_password_dropped() {
        for (url, host, path) in [
            ("http://webapp:7000/books?x=1", "webapp:7000", "/books?x=1"),
            ("https://webapp", "webapp", "/"),
            ("http://cart:hunter2@webapp/x", "webapp", "/x"),
            ("/login?next=http://elsewhere/", "", "/login?next=http://elsewhere/"),
            ("*", "", "*"),
        ] {
            assert_eq!(split_url(url), (host, path), "{url}");
        }
    }
}
