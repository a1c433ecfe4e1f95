//! TLS fingerprints: which of them are of one client.

use std::borrow::Cow;

/// The part of a JA4 fingerprint that names the TLS stack: transport, version, server name, ciphers, ALPN. The number of
/// extensions and their hash are left out, since a resumed session has another extension (`pre_shared_key`) than a full
/// handshake of the same client. What is no JA4 is its own stack.
///
/// JA4 is `a_b_c`, where `a` is ten characters: transport, version (2), SNI, number of ciphers (2), number of extensions
/// (2), ALPN (2); `b` is the hash of the ciphers, `c` that of the extensions (FoxIO, *JA4+ technical details*).
pub fn tls_stack(ja4: &str) -> Cow<'_, str> {
    let mut parts = ja4.split('_');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(a), Some(b), Some(_), None) if a.len() == 10 && a.is_ascii() && b.len() == 12 => {
            Cow::Owned(format!("{}{}_{b}", &a[..6], &a[8..]))
        }
        _ => Cow::Borrowed(ja4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_session_is_of_the_same_client_and_other_ciphers_are_not() {
        let full = tls_stack("t13d1516h2_8daaf6152771_e5627efa2ab1");
        assert_eq!(full, tls_stack("t13d1517h2_8daaf6152771_b1ff8ab2d16f"));
        assert_ne!(full, tls_stack("t13d1516h2_002f76190b23_e5627efa2ab1"));
        assert_ne!(full, tls_stack("t12d1516h2_8daaf6152771_e5627efa2ab1"));
    }

    #[test]
    fn what_is_no_ja4_stands_for_itself() {
        for text in ["", "a_b_c", "e7d705a3286e19ea42f587b344ee6865", "t13d1516h2_8daaf6152771"] {
            assert_eq!(tls_stack(text), text);
        }
    }
}
