//! Docker's json-file driver: `{"log":"…\n","stream":"stdout","time":"…"}`, lines cut at 16 KiB.

use super::{object::Key, passed::Kind};
use crate::parse::json::unescape;

/// Docker ends every line in `\n` but one that goes on, of which it writes so many bytes.
const PIECE_BYTES: usize = 16 * 1024;

/// Its key of the line.
pub(super) const LOG: &str = "log";

pub(super) fn key(path: &[u8]) -> Option<Key> {
    Some(match path {
        b"log" => Key::Record,
        b"stream" => Key::Stream,
        b"time" => Key::Time(Kind::Docker),
        b"attrs" => Key::Sign(Kind::Docker),
        _ => return None,
    })
}

/// Whether a text, as it was written, is one that goes on.
pub(super) fn is_cut(written: &str, is_escaped: bool) -> bool {
    if written.len() < PIECE_BYTES || written.ends_with("\\n") {
        return false;
    }
    let mut text = String::new();
    !is_escaped || unescape(written, &mut text).is_ok() && text.len() >= PIECE_BYTES
}
