//! The prefix of the container runtimes' log files: `<time> stdout F <line>`, a piece of a long line being tagged `P`.

use qualm_model::time::Timestamp;

use crate::parse::time::rfc3339;

/// What stands before a line, and the line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) time: Timestamp,
    pub(super) stream: &'a str,
    pub(super) is_piece: bool,
    pub(super) content: &'a str,
}

/// A line behind such a prefix.
#[inline]
pub(super) fn line(text: &str) -> Option<Line<'_>> {
    let (time, rest) = text.split_at_checked(memchr::memchr(b' ', text.as_bytes())?)?;
    let rest = &rest[1..];
    let stream = rest.get(..6).filter(|stream| matches!(*stream, "stdout" | "stderr"))?;
    let (tags, content) = rest[6..].strip_prefix(' ')?.split_once(' ')?;
    // Tags are parted by colons; the first says whether the line is whole.
    let is_piece = match tags.split(':').next()? {
        "F" => false,
        "P" => true,
        _ => return None,
    };
    Some(Line { time: rfc3339(time).ok()?, stream, is_piece, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_time_a_stream_and_a_tag_make_a_prefix() {
        let found = line("2026-11-22T02:02:24.122345678Z stderr P:x a b").expect("a prefix");
        assert_eq!((found.stream, found.is_piece, found.content), ("stderr", true, "a b"));
        assert_eq!(line("2026-11-22T02:02:24+01:00 stdout F ").map(|line| line.content), Some(""));
        for text in [
            "2026-11-22T02:02:24Z",
            "2026-11-22T02:02:24Z stdout",
            "2026-11-22T02:02:24Z stdout F",
            "2026-11-22T02:02:24Z stdout X a",
            "2026-11-22T02:02:24Z stdin F a",
            "2026-11-22 stdout F a",
            "22 stdout F a",
            "2026-11-22T02:02:24Z\tinfo\taccess",
        ] {
            assert_eq!(line(text), None, "{text}");
        }
    }
}
