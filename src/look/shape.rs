//! Files whose records are not lines: one JSON text over all of it, or records that take several lines each.

/// How records that nothing could read come to be lines, by the first of them.
pub(super) fn remedy(kept: &[Vec<u8>]) -> Option<&'static str> {
    let first = kept.iter().map(|record| record.trim_ascii()).find(|record| !record.is_empty())?;
    match first {
        // An array that is written as one line, or begins with its first record.
        [b'[', rest @ ..] if rest.trim_ascii_start().starts_with(b"{") => {
            Some("it is one JSON array: give each of its records a line, `jq -c '.[]' FILE | qualm look -`")
        }
        b"[" => {
            Some("it is one JSON array over many lines: `jq -c '.[]' FILE | qualm look -` gives each record a line")
        }
        b"{" => Some("its records take several lines each: `jq -c . FILE | qualm look -` gives each a line"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_is_not_in_lines_is_known_by_how_it_begins() {
        let of = |lines: &[&str]| remedy(&lines.iter().map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>());
        assert!(of(&["[{\"a\":1},", "{\"a\":2}]"]).is_some_and(|told| told.contains("jq -c '.[]'")));
        assert!(of(&["[", "  {", "    \"a\": 1"]).is_some_and(|told| told.contains("jq -c '.[]'")));
        assert!(of(&["", "{", "  \"a\": 1", "}"]).is_some_and(|told| told.contains("jq -c . ")));
        for lines in [&["{\"a\":1}", "{"][..], &["[2026-11-22T02:02:24Z] \"GET / HTTP/1.1\""], &["a;b"], &[]] {
            assert_eq!(of(lines), None, "{lines:?}");
        }
    }
}
