//! A database file read from the side: nothing is locked, nothing is written to it, whoever has it open goes on.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use redb::StorageBackend;

/// The header of a redb file: every commit changes it.
const HEADER: usize = 320;
/// What is written is held in pieces of this size.
const PIECE: u64 = 4096;

/// What the database finds out or mends on opening stays in memory. A page that the last commit leads to is written
/// again only after the next commit: while the header is as it was, what was read is what was committed.
#[derive(Debug)]
pub(super) struct Aside {
    file: File,
    header: [u8; HEADER],
    file_bytes: u64,
    bytes: AtomicU64,
    written: Mutex<BTreeMap<u64, Box<[u8; PIECE as usize]>>>,
    /// A commit of whoever writes the file came between.
    overtaken: Arc<AtomicBool>,
}

impl Aside {
    /// `overtaken` is set where the file was written while it was read, and reading must begin anew.
    pub(super) fn open(path: &Path, overtaken: Arc<AtomicBool>) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        let bytes = file.metadata()?.len();
        Ok(Self { file, header, file_bytes: bytes, bytes: AtomicU64::new(bytes), written: Mutex::default(), overtaken })
    }

    fn piece(&self, number: u64) -> io::Result<Box<[u8; PIECE as usize]>> {
        let mut piece = Box::new([0; PIECE as usize]);
        let from = number * PIECE;
        let there = self.file_bytes.saturating_sub(from).min(PIECE) as usize;
        self.file.read_exact_at(&mut piece[..there], from)?;
        let mut header = [0; HEADER];
        self.file.read_exact_at(&mut header, 0)?;
        if header != self.header {
            self.overtaken.store(true, Ordering::Relaxed);
            return Err(io::Error::other("it was written while it was read"));
        }
        Ok(piece)
    }
}

/// The pieces that `length` bytes from `offset` on lie in: number of each, where in it, and where in the bytes.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let end = offset + length as u64;
    (offset / PIECE..end.div_ceil(PIECE)).map(move |number| {
        let (from, to) = (offset.max(number * PIECE), end.min((number + 1) * PIECE));
        let within = (from - number * PIECE) as usize..(to - number * PIECE) as usize;
        (number, within, (from - offset) as usize..(to - offset) as usize)
    })
}

impl StorageBackend for Aside {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.load(Ordering::Relaxed))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, within, at) in pieces(offset, out.len()) {
            match written.get(&number) {
                Some(piece) => out[at].copy_from_slice(&piece[within]),
                None => out[at].copy_from_slice(&self.piece(number)?[within]),
            }
        }
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, within, at) in pieces(offset, data.len()) {
            let piece = match written.remove(&number) {
                Some(piece) => piece,
                None => self.piece(number)?,
            };
            written.entry(number).or_insert(piece)[within].copy_from_slice(&data[at]);
        }
        Ok(())
    }
}
