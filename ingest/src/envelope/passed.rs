//! Which envelopes a record came in, for whoever wants to be told.

/// What shippers and runtimes put around a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub(super) enum Kind {
    Cri = 1 << 0,
    Docker = 1 << 1,
    Fluent = 1 << 2,
    Vector = 1 << 3,
    Beats = 1 << 4,
    OtlpJson = 1 << 5,
    OtlpProtobuf = 1 << 6,
    Syslog = 1 << 7,
    Pointer = 1 << 8,
    /// Keys of the record stand beside those of the shipper.
    Lifted = 1 << 9,
    /// Nothing tells who put it there.
    Unnamed = 1 << 10,
}

const NAMES: [(Kind, &str); 11] = [
    (Kind::OtlpProtobuf, "OTLP logs (Protobuf)"),
    (Kind::OtlpJson, "OTLP logs (JSON)"),
    (Kind::Pointer, "the configured place in JSON"),
    (Kind::Beats, "Filebeat or Logstash"),
    (Kind::Vector, "Vector"),
    (Kind::Fluent, "Fluent Bit or Fluentd"),
    (Kind::Unnamed, "JSON with the line in it"),
    (Kind::Lifted, "a shipper's keys beside the record's own"),
    (Kind::Syslog, "syslog"),
    (Kind::Docker, "Docker's json-file"),
    (Kind::Cri, "CRI"),
];

/// The envelopes around one record; none where it stood by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Passed(u16);

impl Passed {
    #[inline]
    pub(super) fn note(&mut self, kind: Kind) {
        self.0 |= kind as u16;
    }

    #[inline]
    pub(super) fn clear(&mut self) {
        self.0 = 0;
    }

    /// Their names, those that usually are the outer ones first.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().filter(move |&(kind, _)| self.0 & kind as u16 != 0).map(|(_, name)| name)
    }
}
