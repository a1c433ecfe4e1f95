//! Numbers that JSON writers put down as numbers or as texts: protobuf's 64-bit ones, and those of proxies.

use std::borrow::Cow;

use serde::Deserialize;

use crate::source::Invalid;

/// A whole number, written as one or as a text; an empty text and `-` are absent.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Whole<'a> {
    /// `5`
    Number(u64),
    /// `"5"`
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

impl Whole<'_> {
    /// The number behind it.
    pub(super) fn value(&self) -> Result<Option<u64>, Invalid> {
        match self {
            Self::Number(number) => Ok(Some(*number)),
            Self::Text(text) if matches!(text.as_ref(), "" | "-") => Ok(None),
            Self::Text(text) => text.parse().map(Some).map_err(|_| Invalid::WrongType),
        }
    }
}

/// The number of a field that may be missing.
pub(super) fn whole(field: Option<&Whole<'_>>) -> Result<Option<u64>, Invalid> {
    field.map_or(Ok(None), Whole::value)
}

/// An HTTP status: three digits, or absent.
pub(super) fn status(field: Option<&Whole<'_>>) -> Result<Option<u16>, Invalid> {
    let Some(number) = whole(field)? else { return Ok(None) };
    u16::try_from(number).ok().filter(|number| *number < 1000).map(Some).ok_or(Invalid::WrongType)
}
