//! How much of a file is still to be read, as it was when it was opened first.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Bytes that a source has yet to read before it comes to the end for the first time, as they lie on the disk.
#[derive(Debug, Clone, Default)]
pub struct Remaining(Arc<AtomicU64>);

impl Remaining {
    /// Of a file of this many bytes, which may be none.
    pub(super) fn of(bytes: u64) -> Self {
        // Also an empty one has an end that must be come to.
        Self(Arc::new(AtomicU64::new(bytes.max(1))))
    }

    /// How many; 0 once the end was reached, and for what has no length: a pipe, standard input.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The end was reached. What is written later is no past.
    pub(super) fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn read(&self, bytes: u64) {
        // The last byte is not done with before its record was handed on.
        let left = |left: u64| (left > 0).then(|| left.saturating_sub(bytes).max(1));
        // It fails only where nothing is left.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
    }
}

/// What is read through it is no longer remaining.
pub(super) struct Counted<R> {
    pub(super) input: R,
    pub(super) remaining: Remaining,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.remaining.read(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_remains_until_the_end_was_reached_and_nothing_ever_after() {
        let remaining = Remaining::of(10);
        let mut input = Counted { input: &b"0123456789ab"[..], remaining: remaining.clone() };
        input.read_exact(&mut [0; 4]).expect("there are four");
        assert_eq!(remaining.bytes(), 6);
        input.read_to_end(&mut Vec::new()).expect("readable");
        assert_eq!(remaining.bytes(), 1, "its record may not be handed on yet");
        remaining.end();
        remaining.read(3);
        assert_eq!(remaining.bytes(), 0);
        assert_eq!(Remaining::default().bytes(), 0, "a pipe has no length");
    }
}
