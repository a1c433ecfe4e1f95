//! Folding: what a caller put into a path becomes a placeholder, so that calls of one operation share one name and
//! no secret of a path travels further than the parser.
//!
//! `GET /v1/orders/8123?token=x` becomes `GET /v1/orders/{id}`. Placeholders: `{id}` numbers, `{uuid}`, `{hex}` (8 or
//! more), `{date}`, `{token}` (JWTs; 16 or more characters that no words could be), `{email}`, `{card}` (13 to 19
//! digits that pass Luhn's check) and `{text}` (percent-encoded or overlong text). Query, fragment and matrix
//! parameters are dropped. Folding is idempotent and bounded: [`MAX_BYTES`] and [`MAX_SEGMENTS`], then `…`.

mod named;
mod sample;
mod token;
mod word;

pub use self::sample::append_sample;

/// No folded path is longer than this, in bytes.
pub const MAX_BYTES: usize = 256;
/// Segments beyond this many are folded to one `…`.
pub const MAX_SEGMENTS: usize = 16;
/// A folded segment that is still longer is `{text}`.
const MAX_SEGMENT_BYTES: usize = 80;
/// Longer methods, and those that are not upper case, are folded to one name.
const MAX_METHOD_BYTES: usize = 16;
const MORE: &str = "/…";

const LOWER_HEX: u8 = 1;
const LOWER: u8 = 2;
const UPPER: u8 = 4;
const DIGIT: u8 = 8;
/// `-`, `_`, `.` and `~`: part of names.
const JOINER: u8 = 16;
const PERCENT: u8 = 32;
/// What splits a segment into words; bytes of multi-byte characters too.
const OTHER: u8 = 64;
const CONTROL: u8 = 128;

static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [OTHER; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'a'..=b'f' => LOWER_HEX,
            b'g'..=b'z' => LOWER,
            b'A'..=b'Z' => UPPER,
            b'0'..=b'9' => DIGIT,
            b'-' | b'_' | b'.' | b'~' => JOINER,
            b'%' => PERCENT,
            0..=31 | 127 => CONTROL,
            _ => OTHER,
        };
        byte += 1;
    }
    table
}

/// Writes method and folded path to `out`, replacing what was there. An empty method leaves the path alone.
pub fn operation(method: &str, path: &str, out: &mut String) {
    out.clear();
    if !method.is_empty() {
        let known = method.len() <= MAX_METHOD_BYTES
            && method.bytes().all(|c| c.is_ascii_uppercase() || c == b'-' || c == b'_');
        out.push_str(if known { method } else { "{method}" });
    }
    if method.is_empty() || path.is_empty() {
        return append_path(path, out);
    }
    out.push(' ');
    append_path(path, out);
}

/// Appends the folded `path` to `out`: at most [`MAX_BYTES`].
pub fn append_path(path: &str, out: &mut String) {
    let begin = out.len();
    let bytes = path.as_bytes();
    let (mut start, mut segments) = (0, 0);
    loop {
        let (end, classes) = scan_segment(bytes, start);
        let segment = &path[start..cut_parameters(bytes, start, end, classes)];
        if start > 0 {
            out.push('/');
        }
        let before = out.len();
        append_segment(segment, classes, out);
        if out.len() - before > MAX_SEGMENT_BYTES {
            out.truncate(before);
            out.push_str("{text}");
        }
        segments += usize::from(!segment.is_empty());
        if segments > MAX_SEGMENTS || segment == "…" || out.len() - begin > MAX_BYTES - MORE.len() {
            out.truncate(if start > 0 { before - 1 } else { before });
            return out.push_str(MORE);
        }
        if end == bytes.len() || bytes[end] != b'/' {
            return;
        }
        start = end + 1;
    }
}

/// Appends free text, such as a sample of a line that could not be read, with everything folded that could be a
/// secret, and what follows a `?` dropped up to the next blank or quote. Not bounded: bound the text.
pub fn append_text(text: &str, out: &mut String) {
    append_words(&named::without_secrets(text), out);
}

/// Appends free text in which nothing is named as a secret any more.
fn append_words(text: &str, out: &mut String) {
    let ends_query = |c: char| c.is_whitespace() || c.is_control() || c == '"' || c == '\'';
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| ends_query(c) || c == '/' || c == '?').unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        let classes = word.bytes().fold(0, |classes, byte| classes | CLASS[usize::from(byte)]);
        append_segment(word, classes, out);
        let next = tail.chars().next().map_or(0, char::len_utf8);
        out.push_str(&tail[..next]);
        rest = &tail[next..];
        if tail.starts_with('?') {
            let query = rest.find(ends_query).unwrap_or(rest.len());
            out.push_str(if query > 0 { "{text}" } else { "" });
            rest = &rest[query..];
        }
    }
}

/// The end of the segment that starts at `start`, and the classes of its bytes.
#[inline]
fn scan_segment(bytes: &[u8], start: usize) -> (usize, u8) {
    let mut classes = 0;
    for (i, &byte) in bytes[start..].iter().enumerate() {
        if matches!(byte, b'/' | b'?' | b'#') {
            return (start + i, classes);
        }
        classes |= CLASS[usize::from(byte)];
    }
    (bytes.len(), classes)
}

/// Matrix parameters (`;jsessionid=…`) are no part of a name.
#[inline]
fn cut_parameters(bytes: &[u8], start: usize, end: usize, classes: u8) -> usize {
    if classes & OTHER == 0 {
        return end;
    }
    memchr(b';', &bytes[start..end]).map_or(end, |i| start + i)
}

fn memchr(needle: u8, bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&byte| byte == needle)
}

/// Whether nothing in the segment could need folding; the way of most segments.
#[inline]
fn is_plain(segment: &str, classes: u8) -> bool {
    let letters_only = classes & !(LOWER_HEX | LOWER | UPPER | JOINER) == 0;
    let short = segment.len() < 8 || (segment.len() < token::MIN_BYTES && classes & (LOWER | JOINER) != 0);
    // `v1`, `s3`: too short for a number that is more than a version.
    let version = segment.len() <= 3
        && classes & !(LOWER_HEX | LOWER | UPPER | DIGIT) == 0
        && segment.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
    if version {
        return true;
    }
    letters_only && (short || (classes & UPPER == 0 && classes & (LOWER | JOINER) != 0 && segment.len() < 32))
}

#[inline]
fn append_segment(segment: &str, classes: u8, out: &mut String) {
    if is_plain(segment, classes) {
        out.push_str(segment);
    } else {
        fold_segment(segment, classes, out);
    }
}

/// Folds one segment, or a piece of text without blanks.
fn fold_segment(segment: &str, classes: u8, out: &mut String) {
    if classes & CONTROL != 0 {
        return out.push_str("{text}");
    }
    if classes & PERCENT != 0 {
        return out.push_str(word::encoded(segment));
    }
    if classes == DIGIT {
        return out.push_str(word::number(segment.as_bytes()));
    }
    if let Some(placeholder) = word::whole(segment) {
        return out.push_str(placeholder);
    }
    let mut rest = segment;
    while !rest.is_empty() {
        let end = rest.bytes().position(|byte| CLASS[usize::from(byte)] == OTHER).unwrap_or(rest.len());
        word::append(&rest[..end], out);
        let tail = &rest[end..];
        let next = tail.bytes().position(|byte| CLASS[usize::from(byte)] != OTHER).unwrap_or(tail.len());
        out.push_str(&tail[..next]);
        rest = &tail[next..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folded(path: &str) -> String {
        let mut out = String::new();
        append_path(path, &mut out);
        out
    }

    #[test]
    fn ids_become_placeholders_and_names_stay() {
        for (path, template) in [
            ("/", "/"),
            ("", ""),
            ("/v1/orders/42", "/v1/orders/{id}"),
            ("/v1/orders/42?x=1&token=abc", "/v1/orders/{id}"),
            ("/v1/orders/42#frag", "/v1/orders/{id}"),
            ("/cart;jsessionid=0A1B/items", "/cart/items"),
            ("/users/550e8400-e29b-41d4-a716-446655440000/x", "/users/{uuid}/x"),
            ("/blob/deadbeef", "/blob/{hex}"),
            ("/blob/0123456789abcdef", "/blob/{hex}"),
            ("/day/2024-01-31/20240131/2024-01-31T12:00:00Z", "/day/{date}/{date}/{date}"),
            ("/u/bob@example.org/profile", "/u/{email}/profile"),
            ("/u/bob%40example.org", "/u/{email}"),
            ("/u/bob%2540example.org", "/u/{email}"),
            ("/pay/4111111111111111", "/pay/{card}"),
            ("/pay/4111-1111-1111-1111", "/pay/{card}"),
            ("/pay/4111111111111112", "/pay/{id}"),
            ("/t/eyJhbGciOiJub25lIn0.eyJzdWIiOiJib2IifQ.c2lnbmF0dXJl", "/t/{token}"),
            ("/t/dGhpcyBpcyBhIHNlY3JldA", "/t/{token}"),
            ("/hipstershop.ProductCatalogService/GetProductV2", "/hipstershop.ProductCatalogService/GetProductV2"),
            ("/api/v1beta1/s3/oauth2/1.1/x.json", "/api/v1beta1/s3/oauth2/1.1/x.json"),
            ("/pods/ts-gateway-service-6f6cfc45b-h5m2n/log", "/pods/{token}/log"),
            ("/Products(17)/items:search", "/Products({id})/items:search"),
            ("/user12345/order-8127", "/user{id}/order-{id}"),
            ("/hello%20world", "/{text}"),
            ("/%zz", "/{text}"),
            ("/192.0.2.7/x", "/{id}/x"),
            ("auth/approle/login", "auth/approle/login"),
            ("/@vite/client", "/@vite/client"),
        ] {
            assert_eq!(folded(path), template, "{path}");
        }
    }

    #[test]
    fn the_method_is_a_word_or_is_folded_too() {
        let mut out = String::from("old");
        operation("GET", "/x/1", &mut out);
        assert_eq!(out, "GET /x/{id}");
        operation("hunter2secret", "/x", &mut out);
        assert_eq!(out, "{method} /x");
        operation("", "/x", &mut out);
        assert_eq!(out, "/x");
        operation("CONNECT", "", &mut out);
        assert_eq!(out, "CONNECT");
    }

    #[test]
    fn deep_and_long_paths_end_in_an_ellipsis() {
        let deep = folded(&"/a".repeat(40));
        assert_eq!(deep, format!("{}{MORE}", "/a".repeat(MAX_SEGMENTS)));
        let long = folded(&format!("/{}", "word-and-word-and-word/".repeat(15)));
        assert!(long.len() <= MAX_BYTES && long.ends_with(MORE), "{long}");
    }

    #[test]
    fn a_sample_of_a_line_keeps_its_shape_and_loses_its_secrets() {
        let mut out = String::new();
        append_text(r#"{"path":"/u/bob@example.org?k=v/w","n":4111111111111111} tail"#, &mut out);
        assert_eq!(out, r#"{"path":"/u/{email}?{text}","n":{card}} tail"#);
    }

    #[test]
    fn short_random_tokens_are_seen_by_their_looks() {
        // 62 characters, 16 to 31 of them, from a fixed generator.
        let mut state = 88_172_645_463_325_252_u64;
        let mut next = |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let missed = (0..10_000)
            .filter(|_| {
                let length = 16 + next(16);
                let token: String = (0..length).map(|_| char::from(alphabet[next(62) as usize])).collect();
                folded(&token).contains(&token[..8])
            })
            .count();
        assert!(missed <= 100, "{missed} of 10,000");
    }

    fn longest_digit_run(text: &str) -> usize {
        text.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0)
    }

    fn secret() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z]{2,8}[._+]?[a-z]{1,5}@[a-z]{2,9}\\.(org|com)",
            "eyJ[A-Za-z0-9_-]{20,40}\\.eyJ[A-Za-z0-9_-]{20,60}\\.[A-Za-z0-9_-]{43}",
            "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
            "[0-9a-f]{32,64}",
            "4[0-9]{15}",
            "4[0-9]{3}-[0-9]{4}-[0-9]{4}-[0-9]{4}",
            "(hvs\\.|ghp_|sk-|xoxb-|AKIA)[A-Za-z0-9]{20,40}",
            "[A-Za-z0-9_-]{12}[A-Za-z0-9]{32,60}",
        ]
    }

    fn percent_encoded(text: &str) -> String {
        text.bytes().map(|byte| format!("%{byte:02X}")).collect()
    }

    proptest! {
        #[test]
        fn folding_twice_is_folding_once(path in "(/?[A-Za-z0-9_.@%:;~+=(){}…-]{0,40}){0,12}") {
            let once = folded(&path);
            prop_assert_eq!(folded(&once), once);
        }

        #[test]
        fn no_path_is_longer_than_the_bound_nor_keeps_long_numbers(path in "\\PC{0,600}") {
            let out = folded(&path);
            prop_assert!(out.len() <= MAX_BYTES, "{} bytes", out.len());
            prop_assert!(longest_digit_run(&out) < 6, "{}", out);
            prop_assert_eq!(folded(&out), out);
        }

        #[test]
        fn planted_secrets_never_survive(secret in secret(), before in "[a-z/]{0,12}", after in "(/[a-z]{1,6}){0,2}") {
            for form in [secret.clone(), percent_encoded(&secret), secret.replace('@', "%40")] {
                let out = folded(&format!("/{before}/{form}{after}"));
                // No window of 12 characters of the secret is left.
                for start in 0..secret.len().saturating_sub(11) {
                    prop_assert!(!out.contains(&secret[start..start + 12]), "{} in {}", secret, out);
                }
                prop_assert!(!out.contains('@'), "{}", out);
            }
        }

        #[test]
        fn free_text_never_panics_and_keeps_no_long_number(text in "\\PC{0,300}") {
            let mut out = String::new();
            append_text(&text, &mut out);
            prop_assert!(longest_digit_run(&out) < 6, "{}", out);
        }
    }
}
