//! Lines of a byte stream, of bounded length, packed or plain.

use std::io::{self, BufReader, Read};

use memchr::memchr;

/// What is read at once.
const CHUNK: usize = 256 * 1024;
/// What some programs put before the first character of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Frames made with `zstd --long=27` need a window of 128 MiB.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

/// A stream that has no lines, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoLines {
    /// Several files in one.
    #[error(
        "it is a tar archive, which holds files rather than lines; give it the files: `tar -xOf ARCHIVE | qualm look -`"
    )]
    Tar,
    /// Several files in one, packed.
    #[error(
        "it is a ZIP archive, which holds files rather than lines; give it the files: `unzip -p ARCHIVE | qualm look -`"
    )]
    Zip,
    /// Packed otherwise than with gzip or Zstandard.
    #[error("it is packed with {0}; unpack it: `{0} -dc FILE | qualm look -`")]
    Packed(&'static str),
    /// Characters of two bytes.
    #[error("it is UTF-16, and records are read in UTF-8: `iconv -f UTF-16 -t UTF-8 FILE | qualm look -`")]
    Utf16,
}

impl NoLines {
    /// Where tar's mark stands.
    const TAR: std::ops::Range<usize> = 257..262;

    /// What a stream that begins so is, where it is none of lines.
    fn of(begin: &[u8]) -> Option<Self> {
        match begin {
            // No line has what stands behind the name of the first file.
            _ if begin.get(Self::TAR) == Some(b"ustar") && begin[..Self::TAR.start].contains(&0) => Some(Self::Tar),
            _ if begin.starts_with(b"PK\x03\x04") => Some(Self::Zip),
            _ if begin.starts_with(b"BZh") => Some(Self::Packed("bzip2")),
            _ if begin.starts_with(b"\xfd7zXZ\0") => Some(Self::Packed("xz")),
            // Its byte order mark.
            _ if begin.starts_with(b"\xff\xfe") || begin.starts_with(b"\xfe\xff") => Some(Self::Utf16),
            _ => None,
        }
    }
}

/// What came next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line, without its end.
    Whole(&'a [u8]),
    /// A line longer than the bound; it was stepped over.
    TooLong,
    /// Nothing is buffered: the next read may have to wait.
    Starved,
    /// The stream has ended, or has nothing more for now. What has no line end yet stays.
    End,
}

/// Splits a stream into lines.
pub struct Lines {
    input: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// What is not given out yet: `buffer[start..end]`.
    start: usize,
    end: usize,
    /// How far it was searched for a line end.
    searched: usize,
    max_bytes: usize,
    skipping: bool,
    /// Nothing was given out yet: a byte order mark may stand here.
    at_head: bool,
    /// Bytes read from the stream.
    read: u64,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("buffered", &(self.end - self.start)).finish_non_exhaustive()
    }
}

impl Lines {
    /// The lines of `input`, of at most `max_bytes` each.
    pub fn new(input: Box<dyn Read + Send>, max_bytes: usize) -> Self {
        // One more than the bound must fit, and a `\r\n`, and a byte order mark.
        let buffer = vec![0; CHUNK.max(max_bytes + 6)];
        Self { input, buffer, start: 0, end: 0, searched: 0, max_bytes, skipping: false, at_head: true, read: 0 }
    }

    /// Bytes read from the stream so far.
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// Reads more. Whether there was any.
    ///
    /// Errors: those of the stream; [`NoLines`] where its begin shows that it has none.
    pub fn refill(&mut self) -> io::Result<bool> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.searched -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            // No line end within the bound: what is buffered is no record.
            (self.end, self.searched, self.skipping) = (0, 0, true);
        }
        // No more than the processor keeps near it, however long a line may be.
        let until = self.buffer.len().min(self.end + CHUNK);
        loop {
            match self.input.read(&mut self.buffer[self.end..until]) {
                Ok(count) => {
                    self.end += count;
                    self.read += count as u64;
                    let begin = if self.at_head && !self.skipping { &self.buffer[..self.end] } else { &[] };
                    if let Some(no_lines) = NoLines::of(begin) {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, no_lines));
                    }
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next buffered line.
    pub fn next_buffered(&mut self) -> Line<'_> {
        let Some(at) = memchr(b'\n', &self.buffer[self.searched..self.end]) else {
            self.searched = self.end;
            return Line::Starved;
        };
        let (from, to) = (self.start, self.searched + at);
        (self.start, self.searched) = (to + 1, to + 1);
        self.line(from, to)
    }

    /// What stands at the end of the stream without a line end.
    pub fn rest(&mut self) -> Line<'_> {
        let (from, to) = (self.start, self.end);
        (self.start, self.searched) = (to, to);
        if from == to && !self.skipping { Line::End } else { self.line(from, to) }
    }

    fn line(&mut self, from: usize, to: usize) -> Line<'_> {
        let at_head = std::mem::take(&mut self.at_head);
        if std::mem::take(&mut self.skipping) {
            return Line::TooLong;
        }
        let line = &self.buffer[from..to];
        let line = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| at_head).unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > self.max_bytes { Line::TooLong } else { Line::Whole(line) }
    }
}

/// Whether a stream that begins so is packed.
pub(crate) fn is_packed(first: &[u8]) -> bool {
    first.starts_with(&[0x1f, 0x8b]) || first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

/// Unpacks gzip and Zstandard streams, known by their first bytes; others pass.
pub fn unpacked(mut input: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    let mut magic = [0; 4];
    let mut count = 0;
    while count < magic.len() {
        match input.read(&mut magic[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let input = io::Cursor::new(magic[..count].to_vec()).chain(input);
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(CHUNK, input))),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let mut decoder = zstd::stream::read::Decoder::new(input)?;
            decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        _ => Box::new(input),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], max: usize) -> Vec<Option<String>> {
        let mut lines = Lines::new(Box::new(io::Cursor::new(text.to_vec())), max);
        let mut all = Vec::new();
        loop {
            match lines.next_buffered() {
                Line::Whole(line) => all.push(Some(String::from_utf8_lossy(line).into_owned())),
                Line::TooLong => all.push(None),
                Line::Starved | Line::End => {
                    if !lines.refill().expect("in memory") {
                        break;
                    }
                }
            }
        }
        match lines.rest() {
            Line::Whole(line) => all.push(Some(String::from_utf8_lossy(line).into_owned())),
            Line::TooLong => all.push(None),
            Line::Starved | Line::End => {}
        }
        all
    }

    #[test]
    fn lines_end_in_either_way_and_the_last_needs_no_end() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(lines(b"a\r\n\nb", 10), [some("a"), some(""), some("b")]);
        assert_eq!(lines(b"a\n", 10), [some("a")]);
        assert_eq!(lines(b"", 10), []);
    }

    #[test]
    fn a_byte_order_mark_at_the_head_is_no_part_of_the_first_line() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(lines(b"\xef\xbb\xbf{}\n\xef\xbb\xbfb", 3), [some("{}"), None]);
        assert_eq!(lines(b"\xef\xbb\xbfa", 10), [some("a")]);
        assert_eq!(lines(b"a\n\xef\xbb\xbfb\n", 10), [some("a"), some("\u{feff}b")]);
    }

    #[test]
    fn an_archive_is_an_error_with_its_remedy_and_no_lines() {
        let mut tar = vec![0; 1024];
        tar[..10].copy_from_slice(b"access.log");
        tar[257..262].copy_from_slice(b"ustar");
        let whole: [&[u8]; 4] = [&tar, b"PK\x03\x04access.log", b"BZh91AY", b"\xfd7zXZ\0\0"];
        for (begin, remedy) in whole.into_iter().zip(["tar -xOf", "unzip -p", "bzip2 -dc", "xz -dc"]) {
            let error = Lines::new(Box::new(io::Cursor::new(begin.to_vec())), 100).refill().expect_err("no lines");
            assert!(error.to_string().contains(remedy), "{error}");
        }
        let line = format!("{}ustar", "x".repeat(257));
        assert_eq!(lines(format!("{line}\nPK\n").as_bytes(), 1000), [Some(line), Some("PK".to_owned())]);
    }

    #[test]
    fn a_gigantic_line_is_stepped_over_in_bounded_memory() {
        let mut text = vec![b'x'; 3 * CHUNK + 17];
        text.extend(b"\nshort\n");
        text.extend(vec![b'y'; 2 * CHUNK]);
        assert_eq!(lines(&text, 100), [None, Some("short".to_owned()), None]);
        assert_eq!(lines(b"0123456789\n01234567890\n", 10), [Some("0123456789".to_owned()), None]);
    }
}
