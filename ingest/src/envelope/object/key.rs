//! What the keys of envelopes mean.

use crate::{
    envelope::{beats, docker, fluent, otlp, passed::Kind, vector},
    parse::json::Stretch,
};

/// What a key of an envelope is, by its path: the keys that lead to it, parted by dots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::envelope) enum Key {
    /// The line, as a text or as the object that it was parsed to.
    Record,
    /// The object that the line was parsed to.
    Nested,
    /// Which of the two outputs it was written to.
    Stream,
    /// When, in the word of whoever it is.
    Time(Kind),
    /// The file that it was read from.
    File,
    /// The same, where it is a path or tag of a container's log; anybody has keys of this name.
    ContainerFile,
    /// `P` where the line goes on.
    Tag,
    /// True where the line goes on.
    Unfinished,
    /// True where it does not.
    Last,
    /// The pod's metadata.
    Metadata,
    /// An object with more of these keys in it.
    Within,
    /// Part of the origin.
    Place(Place),
    /// Nothing that is kept, but only this envelope has it.
    Sign(Kind),
    /// OTLP's logs.
    Otlp,
}

/// Part of the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::envelope) enum Place {
    Cluster,
    Namespace,
    Pod,
    PodIp,
    Node,
    /// The machine that the shipper ran on: the node, where nothing else says which.
    Host,
    Container,
    Owner,
    Version,
}

pub(in crate::envelope) const PLACES: usize = Place::Version as usize + 1;

/// Where the parts of the origin stand; empty where there is none.
pub(in crate::envelope) type Places = [Stretch; PLACES];

/// What the key of this path is, by all that write envelopes.
pub(super) fn key_of(path: &[u8]) -> Option<Key> {
    docker::key(path)
        .or_else(|| fluent::key(path))
        .or_else(|| vector::key(path))
        .or_else(|| beats::key(path))
        .or_else(|| otlp::key(path))
}
