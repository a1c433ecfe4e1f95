//! Whether the file is what was written: every page against the checksum that the page above it has.
//!
//! redb writes those checksums, up to the header, with every commit; on opening it trusts a file that was closed in
//! order. Nothing is added to what is written. One bit of the header has no checksum: it chooses between the last two
//! commits, and changed it leads to the one before, which was saved whole.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::Database;

use super::{SnapshotError, aside::Aside, store::AnyError};

/// Bytes of pages that are kept meanwhile: all is read once.
const CACHE_BYTES: usize = 8 << 20;

/// That `file` is undamaged, without changing it: redb would mend what it finds with the state before. One that is not
/// there, or that another instance writes, is for the opening to judge.
pub(super) fn sound(file: &Path) -> Result<(), SnapshotError> {
    let overtaken = Arc::new(AtomicBool::new(false));
    let Ok(backend) = Aside::open(file, overtaken.clone()) else { return Ok(()) };
    let read = || -> Result<(), AnyError> {
        let mut database = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?;
        verify(&mut database)
    };
    match unpanicked(read).unwrap_or_else(|panic| Err(panic.into())) {
        Err(problem) if !overtaken.load(Ordering::Relaxed) => {
            Err(SnapshotError::Damaged { file: file.to_owned(), problem: problem.to_string() })
        }
        _ => Ok(()),
    }
}

/// Compares every page with its checksum.
pub(super) fn verify(database: &mut Database) -> Result<(), AnyError> {
    match database.check_integrity()? {
        true => Ok(()),
        false => Err("checksums of pages do not fit".into()),
    }
}

/// What `read` gives; where redb panics, as it does on some damaged pages, what it said. What `read` has changed by
/// then is not to be used.
pub(super) fn unpanicked<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read)).map_err(|panic| said(&*panic))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("its pages cannot be read").to_owned()
}
