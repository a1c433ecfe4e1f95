//! Pieces of long lines, joined: container runtimes cut lines at 16 KiB.
//!
//! Bounded in the lines that are open, in the bytes of each, and in those of all: the one that has waited longest is
//! forgotten first, and counted.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use super::Wrapping;

/// Lines that are open at a time.
const MAX_OPEN: usize = 256;
/// Bytes of all open lines.
const MAX_BYTES: usize = 4 << 20;

/// Lines whose end has not come yet, by the file that they are from.
#[derive(Debug)]
pub(super) struct Partials {
    open: HashMap<u64, Open>,
    hasher: RandomState,
    max_line_bytes: usize,
    bytes: usize,
    /// Pieces so far: the age of each.
    clock: u64,
    forgotten: usize,
}

#[derive(Debug, Default)]
struct Open {
    text: String,
    is_too_long: bool,
    touched: u64,
}

/// What a piece makes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// Its line goes on.
    Waiting,
    /// It is a line by itself.
    Alone,
    /// With those before it, it is a line.
    Whole(String),
    /// Its line is longer than a record may be.
    TooLong,
}

impl Partials {
    pub(super) fn new(max_line_bytes: usize) -> Self {
        Self { open: HashMap::new(), hasher: RandomState::new(), max_line_bytes, bytes: 0, clock: 0, forgotten: 0 }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.bytes = 0;
    }

    /// How many lines were forgotten since this was asked last.
    pub(super) fn take_forgotten(&mut self) -> usize {
        std::mem::take(&mut self.forgotten)
    }

    /// The next piece of a line from where `within` says; its last unless it `goes_on`. Pieces of one line stand equally
    /// deep: a record that a shipper calls whole may hold a piece of what the runtime cut.
    pub(super) fn join(&mut self, within: &Wrapping<'_>, depth: u32, piece: &str, goes_on: bool) -> Joined {
        let origin = &within.origin;
        let key = self.hasher.hash_one((
            depth,
            within.partition,
            within.stream,
            within.file,
            [origin.cluster, origin.node, origin.namespace, origin.pod, origin.container],
        ));
        if !goes_on {
            let Some(open) = self.open.remove(&key) else { return Joined::Alone };
            self.bytes -= open.text.len();
            if open.is_too_long || open.text.len() + piece.len() > self.max_line_bytes {
                return Joined::TooLong;
            }
            return Joined::Whole(open.text + piece);
        }
        self.clock += 1;
        let open = self.open.entry(key).or_default();
        open.touched = self.clock;
        if open.is_too_long || open.text.len() + piece.len() > self.max_line_bytes {
            self.bytes -= open.text.len();
            (open.text, open.is_too_long) = (String::new(), true);
        } else {
            self.bytes += piece.len();
            open.text.push_str(piece);
        }
        while self.open.len() > MAX_OPEN || self.bytes > MAX_BYTES {
            self.forget_oldest();
        }
        Joined::Waiting
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.open.iter().min_by_key(|(_, open)| open.touched).map(|(&key, _)| key) else { return };
        if let Some(open) = self.open.remove(&oldest) {
            self.bytes -= open.text.len();
            self.forgotten += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(file: &str) -> Wrapping<'_> {
        Wrapping { file, ..Wrapping::default() }
    }

    #[test]
    fn pieces_are_joined_file_by_file() {
        let mut partials = Partials::new(100);
        assert_eq!(partials.join(&of("a"), 0, "x", true), Joined::Waiting);
        assert_eq!(partials.join(&of("b"), 0, "y", true), Joined::Waiting);
        assert_eq!(partials.join(&of("c"), 0, "z", false), Joined::Alone);
        assert_eq!(partials.join(&of("a"), 0, "1", false), Joined::Whole("x1".to_owned()));
        assert_eq!(partials.join(&of("b"), 0, "2", false), Joined::Whole("y2".to_owned()));
        assert!(partials.is_empty() && partials.bytes == 0);
    }

    #[test]
    fn a_line_that_never_ends_holds_no_memory_and_is_refused_when_it_does() {
        let mut partials = Partials::new(100);
        for _ in 0..1000 {
            assert_eq!(partials.join(&of("a"), 0, "0123456789", true), Joined::Waiting);
            assert!(partials.bytes <= 100);
        }
        assert_eq!(partials.join(&of("a"), 0, "", false), Joined::TooLong);
        assert_eq!((partials.join(&of("a"), 0, "x", false), partials.bytes), (Joined::Alone, 0));
    }

    #[test]
    fn of_too_many_open_lines_the_oldest_is_forgotten_and_counted() {
        let mut partials = Partials::new(100);
        for file in 0..=MAX_OPEN {
            partials.join(&of(&file.to_string()), 0, "x", true);
        }
        assert_eq!((partials.open.len(), partials.take_forgotten(), partials.take_forgotten()), (MAX_OPEN, 1, 0));
        assert_eq!(partials.join(&of("0"), 0, "y", false), Joined::Alone);
        let mut partials = Partials::new(MAX_BYTES);
        let megabyte = "x".repeat(1 << 20);
        for file in 0..6 {
            partials.join(&of(&file.to_string()), 0, &megabyte, true);
        }
        assert_eq!((partials.bytes, partials.take_forgotten()), (MAX_BYTES, 2));
    }
}
