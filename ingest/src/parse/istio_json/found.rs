//! What stands behind a key: numbers are written as such or as texts.

use qualm_model::time::Span;

use crate::source::Invalid;

/// A value that is there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found<'a> {
    Text(&'a str),
    Number(&'a str),
}

impl<'a> Found<'a> {
    pub(super) fn text(self) -> Result<&'a str, Invalid> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Number(_) => Err(Invalid::WrongType),
        }
    }

    /// A whole number, written as one or as a text.
    pub(super) fn number(self) -> Result<u64, Invalid> {
        let (Self::Text(digits) | Self::Number(digits)) = self;
        whole_number(digits)
    }

    pub(super) fn status(self) -> Result<u16, Invalid> {
        u16::try_from(self.number()?).map_err(|_| Invalid::WrongType)
    }

    pub(super) fn grpc_status(self) -> Result<Option<u16>, Invalid> {
        match self {
            Self::Number(_) => self.status().map(Some),
            Self::Text(name) => Ok(grpc_status_of(name)),
        }
    }
}

/// Digits only; a sign, a fraction or an exponent is another type.
pub(in crate::parse) fn whole_number(digits: &str) -> Result<u64, Invalid> {
    if digits.len() > 20 || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return Err(Invalid::WrongType);
    }
    digits.parse().map_err(|_| Invalid::WrongType)
}

/// A duration; centuries are of the wrong type.
pub(in crate::parse) fn milliseconds(count: u64) -> Result<Span, Invalid> {
    let nanoseconds = i64::try_from(count).ok().and_then(|count| count.checked_mul(1_000_000));
    nanoseconds.map(Span).ok_or(Invalid::WrongType)
}

/// The number behind Envoy's name of a gRPC status, in its camel, snake or numeric form.
fn grpc_status_of(name: &str) -> Option<u16> {
    const NAMES: [&str; 17] = [
        "ok",
        "canceled",
        "unknown",
        "invalidargument",
        "deadlineexceeded",
        "notfound",
        "alreadyexists",
        "permissiondenied",
        "resourceexhausted",
        "failedprecondition",
        "aborted",
        "outofrange",
        "unimplemented",
        "internal",
        "unavailable",
        "dataloss",
        "unauthenticated",
    ];
    if name.is_empty() {
        return None;
    }
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let plain: String = name.chars().filter(|&c| c != '_').map(|c| c.to_ascii_lowercase()).collect();
    NAMES.iter().position(|&known| known == plain).map(|number| number as u16)
}
