//! What is said to SPIRE's server, as far as it is needed: messages of `spire.api`, by the field numbers of its
//! definitions (spire-api-sdk).

use std::marker::PhantomData;

/// A call: what is sent, and what comes back.
#[derive(Debug)]
pub(super) struct Method<Q, A> {
    /// Service and method.
    pub(super) path: &'static str,
    of: PhantomData<fn(Q) -> A>,
}

impl<Q, A> Method<Q, A> {
    const fn at(path: &'static str) -> Self {
        Self { path, of: PhantomData }
    }
}

pub(super) const LIST_ENTRIES: Method<ListEntries, Entries> =
    Method::at("/spire.api.server.entry.v1.Entry/ListEntries");
pub(super) const UPDATE_ENTRIES: Method<UpdateEntries, Results> =
    Method::at("/spire.api.server.entry.v1.Entry/BatchUpdateEntry");
pub(super) const DELETE_ENTRIES: Method<DeleteEntries, Results> =
    Method::at("/spire.api.server.entry.v1.Entry/BatchDeleteEntry");
pub(super) const CREATE_ENTRIES: Method<CreateEntries, Results> =
    Method::at("/spire.api.server.entry.v1.Entry/BatchCreateEntry");
pub(super) const GET_AGENT: Method<OneAgent, Agent> = Method::at("/spire.api.server.agent.v1.Agent/GetAgent");
pub(super) const BAN_AGENT: Method<OneAgent, Nothing> = Method::at("/spire.api.server.agent.v1.Agent/BanAgent");
pub(super) const GET_BUNDLE: Method<Nothing, Bundle> = Method::at("/spire.api.server.bundle.v1.Bundle/GetBundle");
pub(super) const GET_AUTHORITIES: Method<Nothing, Authorities> =
    Method::at("/spire.api.server.localauthority.v1.LocalAuthority/GetX509AuthorityState");
pub(super) const PREPARE: Method<Nothing, Nothing> =
    Method::at("/spire.api.server.localauthority.v1.LocalAuthority/PrepareX509Authority");
pub(super) const ACTIVATE: Method<OneAuthority, Nothing> =
    Method::at("/spire.api.server.localauthority.v1.LocalAuthority/ActivateX509Authority");
pub(super) const TAINT: Method<OneAuthority, Nothing> =
    Method::at("/spire.api.server.localauthority.v1.LocalAuthority/TaintX509Authority");
pub(super) const REVOKE: Method<OneAuthority, Nothing> =
    Method::at("/spire.api.server.localauthority.v1.LocalAuthority/RevokeX509Authority");

/// A SPIFFE ID.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct SpiffeId {
    #[prost(string, tag = "1")]
    pub(super) trust_domain: String,
    /// With its first slash.
    #[prost(string, tag = "2")]
    pub(super) path: String,
}

impl SpiffeId {
    /// The parts of one, where it is one.
    pub(super) fn parse(id: &str) -> Option<Self> {
        let rest = id.strip_prefix("spiffe://")?;
        let (trust_domain, path) = rest.split_at(rest.find('/')?);
        Some(Self { trust_domain: trust_domain.to_owned(), path: path.to_owned() })
    }
}

/// What is read of an entry. All of it is kept as bytes besides, so that what this release does not know comes back too.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct Entry {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "3")]
    pub(super) parent_id: Option<SpiffeId>,
    /// Seconds; none is the server's own.
    #[prost(int32, tag = "5")]
    pub(super) x509_svid_ttl: i32,
    #[prost(int32, tag = "13")]
    pub(super) jwt_svid_ttl: i32,
}

/// Which parts of an entry are meant.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct EntryMask {
    #[prost(bool, tag = "5")]
    pub(super) x509_svid_ttl: bool,
    #[prost(bool, tag = "13")]
    pub(super) jwt_svid_ttl: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct ListEntries {
    #[prost(message, optional, tag = "1")]
    pub(super) filter: Option<EntryFilter>,
    #[prost(int32, tag = "3")]
    pub(super) page_size: i32,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct EntryFilter {
    #[prost(message, optional, tag = "1")]
    pub(super) by_spiffe_id: Option<SpiffeId>,
}

/// Entries as the server has them, byte by byte.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct Entries {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(super) entries: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct CreateEntries {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(super) entries: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct UpdateEntries {
    #[prost(message, repeated, tag = "1")]
    pub(super) entries: Vec<Entry>,
    #[prost(message, optional, tag = "2")]
    pub(super) input_mask: Option<EntryMask>,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct DeleteEntries {
    #[prost(string, repeated, tag = "1")]
    pub(super) ids: Vec<String>,
}

/// What became of each entry, in the order of the request.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct Results {
    #[prost(message, repeated, tag = "1")]
    pub(super) results: Vec<OfOne>,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct OfOne {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Became>,
}

/// A status of gRPC, within an answer.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct Became {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct OneAgent {
    #[prost(message, optional, tag = "1")]
    pub(super) id: Option<SpiffeId>,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct Agent {
    #[prost(bool, tag = "6")]
    pub(super) banned: bool,
}

/// The trust domain's roots.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct Bundle {
    #[prost(message, repeated, tag = "2")]
    pub(super) x509_authorities: Vec<Root>,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct Root {
    /// The certificate, DER.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) asn1: Vec<u8>,
    #[prost(bool, tag = "2")]
    pub(super) tainted: bool,
}

/// The authorities that the server has.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct Authorities {
    #[prost(message, optional, tag = "1")]
    pub(super) active: Option<Authority>,
    #[prost(message, optional, tag = "2")]
    pub(super) prepared: Option<Authority>,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct Authority {
    /// Its subject key id, in hexadecimal digits.
    #[prost(string, tag = "1")]
    pub(super) authority_id: String,
    /// Whoever has signed it, where somebody else has.
    #[prost(string, tag = "3")]
    pub(super) upstream_authority_subject_key_id: String,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct OneAuthority {
    #[prost(string, tag = "1")]
    pub(super) authority_id: String,
}

/// What says nothing, or is not looked at.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct Nothing {}
