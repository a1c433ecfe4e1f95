//! JSON records of low volume, read into a type by serde.

use serde::Deserialize;
use serde_json::error::Category;

use crate::source::{Invalid, Rejection};

/// Reads one JSON object. What is no object is foreign; a value of another type than the field's is
/// [`Invalid::WrongType`], everything else that is not well-formed [`Invalid::Syntax`].
///
/// Fields are best optional: whether one is missing is for the format to say.
pub(crate) fn object<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T, Rejection> {
    if !line.trim_ascii_start().starts_with('{') {
        return Err(Rejection::Foreign);
    }
    serde_json::from_str(line).map_err(|error| invalid(&error).into())
}

/// What serde says of a record, in our words.
pub(super) fn invalid(error: &serde_json::Error) -> Invalid {
    match error.classify() {
        // A duplicate of a wanted key is of the syntax's making too, but serde tells of it as it tells of types.
        Category::Data => Invalid::WrongType,
        Category::Syntax | Category::Eof | Category::Io => Invalid::Syntax,
    }
}
