//! What releases before wrote, read as what it is now: what came later stands at the end of each form, and is absent there.

use super::{
    bytes,
    store::{AnyError, parse},
};
use crate::{
    estate::{Credentials, Estate},
    shard::{Edge, Hours, Slow, Source},
    standing::Other,
};

/// An edge as a release of this version wrote it.
pub(super) fn edge_of(written: &[u8], version: u32) -> Result<Edge, AnyError> {
    match version {
        ..2 => parse(&[written, &[0], &bytes(&Hours::default())].concat()),
        2 => parse(&[written, &bytes(&Hours::default())].concat()),
        _ => parse(written),
    }
}

/// A source as a release of this version wrote it.
pub(super) fn source_of(written: &[u8], version: u32) -> Result<Source, AnyError> {
    // Neither how much is of another kind, nor windows, nor what is known over days: those that nobody counted are no grounds.
    let slow = || bytes(&Slow::default());
    let none = || [bytes(&Other::default()), vec![0], slow()].concat();
    let mut source: Source = match version {
        ..3 => parse(&[written, &[0], &none()].concat())?,
        3 => parse(&[written, &none()].concat())?,
        4 => return parse(&[written, &slow()].concat()),
        _ => return parse(written),
    };
    source.other = Other::of_before(&source.evidence);
    Ok(source)
}

/// What is known of the estate, as a release of this version wrote it.
pub(super) fn estate_of(written: &[u8], version: u32) -> Result<Estate, AnyError> {
    if version >= 2 { parse(written) } else { parse(&[written, &bytes(&Credentials::default())].concat()) }
}
