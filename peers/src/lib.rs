//! Who behaves like whom: the fit, with linfa, and the model file that it is kept in.
//!
//! A crate of its own since the lab fits and the scorer reads: the one must not know Kafka and gRPC, the other not
//! polars, and the model nothing that rolls dice.

mod file;
mod fit;

pub use self::file::{Model, ModelError, VERSION as MODEL_VERSION};
pub use self::fit::{LEAST_MEMBERS, Member, fit};
