//! The formats by name: one line each in the table below, and everything else follows from it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    InvalidParser, Row,
    consul::Consul,
    consul_audit::ConsulAudit,
    hubble::Hubble,
    istio_json::IstioJson,
    istio_text::IstioText,
    linkerd::{LinkerdApache, LinkerdJson},
    mapped::{Mapped, Mapping},
    otlp_spans::OtlpSpans,
    vault_audit::VaultAudit,
    zeek::{ZeekJson, ZeekTsv},
    ztunnel::Ztunnel,
};
use crate::source::Rejection;

/// Declares [`Format`] and the grammar behind each: variant, name in the configuration, reader, one line about it.
/// The sample of a format is the file of its name under `samples/`.
macro_rules! formats {
    ($($variant:ident $name:literal $reader:ident, $about:literal;)*) => {
        /// A log format, by the name it has in the configuration and after `--format`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Format {
            $(
                #[doc = $about]
                #[serde(rename = $name)]
                $variant,
            )*
            /// Any CSV or JSON lines, read through a mapping file.
            #[serde(rename = "mapped")]
            Mapped,
        }

        impl Format {
            /// All formats.
            pub const ALL: &[Self] = &[$(Self::$variant,)* Self::Mapped];

            /// The name in the configuration.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Mapped => "mapped",
                }
            }

            /// What it is, in one line.
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$variant => $about,)*
                    Self::Mapped => "Any CSV or JSON lines, read through a mapping file.",
                }
            }

            /// Records as they are met in the field, one a line. Empty for [`Format::Mapped`].
            pub const fn sample(self) -> &'static str {
                match self {
                    $(Self::$variant => include_str!(concat!("samples/", $name, ".txt")),)*
                    Self::Mapped => "",
                }
            }
        }

        /// The reader of one format.
        #[derive(Debug)]
        pub(super) enum Grammar {
            $($variant(Box<$reader>),)*
            Mapped(Box<Mapped>),
        }

        impl Grammar {
            pub(super) fn of(format: Format, mapping: Option<Mapping>) -> Result<Self, InvalidParser> {
                Ok(match (format, mapping) {
                    $((Format::$variant, None) => Self::$variant(Box::default()),)*
                    (Format::Mapped, Some(mapping)) => Self::Mapped(Box::new(Mapped::new(mapping))),
                    _ => return Err(InvalidParser),
                })
            }

            #[inline]
            pub(super) fn parse(&mut self, text: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
                match self {
                    $(Self::$variant(reader) => reader.parse(text, row),)*
                    Self::Mapped(reader) => reader.parse(text, row),
                }
            }
        }
    };
}

formats! {
    IstioJson "istio_json" IstioJson,
        "Envoy's access log as JSON with Istio's 24 keys, and lower-case Envoy operators beside them.";
    IstioText "istio_text" IstioText, "Istio's default text format of 22 fields.";
    Ztunnel "ztunnel" Ztunnel, "ztunnel's access log (Istio's ambient mode), text and JSON.";
    LinkerdJson "linkerd_json" LinkerdJson, "Linkerd's access log in its JSON form.";
    LinkerdApache "linkerd_apache" LinkerdApache, "Linkerd's access log in its Apache form.";
    Consul "consul" Consul, "Access log of Consul's Envoy proxies in its default JSON form.";
    ConsulAudit "consul_audit" ConsulAudit, "Consul's own audit log: calls of its HTTP interface.";
    Hubble "hubble" Hubble, "Cilium's flows as Hubble exports them.";
    ZeekJson "zeek_json" ZeekJson, "Zeek's conn, ssl, http and ssh logs as JSON, in any mixture.";
    ZeekTsv "zeek_tsv" ZeekTsv, "Zeek's conn, ssl, http and ssh logs as tab-separated text.";
    OtlpSpans "otlp_spans" OtlpSpans, "OpenTelemetry's spans: OTLP's export of traces as JSON.";
    VaultAudit "vault_audit" VaultAudit, "Vault's audit device: request and response lines, joined.";
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no format.
#[derive(Debug, thiserror::Error)]
#[error("`{word}` is not a format; did you mean {nearest}? `qualm formats` lists them all")]
pub struct InvalidFormat {
    word: String,
    nearest: Format,
}

impl FromStr for Format {
    type Err = InvalidFormat;

    fn from_str(word: &str) -> Result<Self, InvalidFormat> {
        let near = |format: &&Self| strsim::damerau_levenshtein(format.as_str(), word);
        let nearest = *Self::ALL.iter().min_by_key(near).unwrap_or(&Self::Mapped);
        if nearest.as_str() == word { Ok(nearest) } else { Err(InvalidFormat { word: word.to_owned(), nearest }) }
    }
}
