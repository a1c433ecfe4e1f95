//! The formats by name: one line each in the table below, and everything else follows from it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    InvalidParser, Origin, Row,
    auto::Auto,
    azure::Azure,
    cloudtrail::Cloudtrail,
    consul::Consul,
    consul_audit::ConsulAudit,
    gcp_audit::GcpAudit,
    hubble::Hubble,
    istio_json::IstioJson,
    istio_text::IstioText,
    kafka_authorizer::KafkaAuthorizer,
    keycloak_json::KeycloakJson,
    keycloak_text::KeycloakText,
    kubernetes_audit::KubernetesAudit,
    linkerd::{LinkerdApache, LinkerdJson},
    mapped::{Mapped, Mapping},
    opa_decision::OpaDecision,
    otlp_spans::OtlpSpans,
    postgres_csv::PostgresCsv,
    row::witness::{self, Voucher},
    spire_agent::SpireAgent,
    spire_server::SpireServer,
    sshd::Sshd,
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
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
        pub enum Format {
            $(
                #[doc = $about]
                #[serde(rename = $name)]
                $variant,
            )*
            /// Any CSV or JSON lines, read through a mapping file.
            #[serde(rename = "mapped")]
            Mapped,
            /// Whichever of the others understands a record.
            #[default]
            #[serde(rename = "auto")]
            Auto,
        }

        impl Format {
            /// All formats.
            pub const ALL: &[Self] = &[$(Self::$variant,)* Self::Mapped, Self::Auto];

            /// The name in the configuration.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Mapped => "mapped",
                    Self::Auto => "auto",
                }
            }

            /// What it is, in one line.
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$variant => $about,)*
                    Self::Mapped => "Any CSV or JSON lines, read through a mapping file.",
                    Self::Auto => "Whichever of the others understands a record; they may be mixed.",
                }
            }

            /// Records as they are met in the field, one a line. Empty where the format is not one by itself.
            pub const fn sample(self) -> &'static str {
                match self {
                    $(Self::$variant => include_str!(concat!("samples/", $name, ".txt")),)*
                    Self::Mapped | Self::Auto => "",
                }
            }

            /// Whether it says by itself what its records look like.
            pub const fn is_named(self) -> bool {
                !matches!(self, Self::Mapped | Self::Auto)
            }
        }

        /// The reader of one format.
        #[derive(Debug)]
        pub(super) enum Grammar {
            $($variant(Box<$reader>),)*
            Mapped(Box<Mapped>),
            Auto(Box<Auto>),
        }

        impl Grammar {
            pub(super) fn of(format: Format, mapping: Option<Mapping>) -> Result<Self, InvalidParser> {
                Ok(match (format, mapping) {
                    $((Format::$variant, None) => Self::$variant(Box::default()),)*
                    (Format::Auto, None) => Self::Auto(Box::default()),
                    (Format::Mapped, Some(mapping)) => Self::Mapped(Box::new(Mapped::new(mapping))),
                    _ => return Err(InvalidParser),
                })
            }

            #[inline]
            pub(super) fn parse(&mut self, text: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
                match self {
                    $(Self::$variant(reader) => {
                        row.set_voucher(Format::$variant.voucher());
                        reader.parse(text, row)
                    })*
                    Self::Mapped(reader) => {
                        row.set_voucher(Voucher::Operator);
                        reader.parse(text, row)
                    }
                    Self::Auto(reader) => reader.parse(text, row),
                }
            }
        }
    };
}

impl Format {
    /// Whose word for certificates it is.
    const fn voucher(self) -> Voucher {
        match self {
            _ if self.is_proxy_log() => Voucher::Proxy,
            Self::SpireServer => Voucher::Issuer(&witness::SPIRE),
            Self::KubernetesAudit => Voucher::Issuer(&witness::API_SERVER),
            Self::Mapped | Self::Auto => Voucher::Operator,
            _ => Voucher::Nobody,
        }
    }

    /// Whether only proxies write it: from anybody else it is a forgery.
    pub const fn is_proxy_log(self) -> bool {
        matches!(
            self,
            Self::IstioJson | Self::IstioText | Self::Ztunnel | Self::LinkerdJson | Self::LinkerdApache | Self::Consul
        )
    }
}

impl Grammar {
    /// Reads a line that stands in a JSON string as it was written there, where the format can read it so: `head` begins
    /// with it, and what follows its last byte says where it was written. `None` where it cannot: it must be unescaped
    /// first.
    #[inline]
    pub(super) fn parse_escaped<'r, 'o: 'r>(
        &mut self,
        head: &str,
        row: &mut Row<'r>,
        origin_after: &mut dyn FnMut(usize) -> Option<Origin<'o>>,
    ) -> Option<()> {
        match self {
            Self::IstioJson(reader) => {
                row.set_voucher(Voucher::Proxy);
                reader.parse_escaped(head, row, origin_after)
            }
            Self::Auto(reader) => reader.parse_escaped(head, row, origin_after),
            _ => None,
        }
    }
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
    OtlpSpans "otlp_spans" OtlpSpans, "OpenTelemetry's spans: OTLP's export of traces, as JSON or Protobuf.";
    KeycloakJson "keycloak_json" KeycloakJson,
        "Keycloak's events as JSON: the console log, the admin API, or a listener's topic.";
    KeycloakText "keycloak_text" KeycloakText, "Keycloak's events in its text log.";
    KubernetesAudit "kubernetes_audit" KubernetesAudit,
        "The Kubernetes API server's audit log; tokens joined from their issue to their use.";
    OpaDecision "opa_decision" OpaDecision, "OPA's decision log, line by line or in batches.";
    SpireAgent "spire_agent" SpireAgent, "SPIRE agent's log: which workload got which identity, or none.";
    SpireServer "spire_server" SpireServer, "SPIRE server's audit log: calls of its API, identities issued.";
    Azure "azure" Azure, "Azure's diagnostic logs: sign-ins of Entra ID, and Key Vault's audit events.";
    Cloudtrail "cloudtrail" Cloudtrail, "AWS CloudTrail: STS, IAM, Secrets Manager and every other service.";
    GcpAudit "gcp_audit" GcpAudit, "Google Cloud's audit logs.";
    KafkaAuthorizer "kafka_authorizer" KafkaAuthorizer, "Kafka's authorizer log: what was denied, or allowed.";
    PostgresCsv "postgres_csv" PostgresCsv, "PostgreSQL's csvlog, with pgaudit's records in it.";
    Sshd "sshd" Sshd, "sshd's log: logins and failed ones.";
    VaultAudit "vault_audit" VaultAudit, "Vault's audit device: request and response lines, joined.";
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no format.
#[derive(Debug, thiserror::Error)]
#[error("`{word}` is not a format; {guess}`qualm formats` lists them all")]
pub struct InvalidFormat {
    word: String,
    /// Which one may have been meant, as a question; empty where none is near.
    guess: String,
}

impl FromStr for Format {
    type Err = InvalidFormat;

    fn from_str(word: &str) -> Result<Self, InvalidFormat> {
        if let Some(format) = Self::ALL.iter().find(|format| format.as_str() == word) {
            return Ok(*format);
        }
        let guess = nearest(word).map_or_else(String::new, |format| format!("did you mean {format}? "));
        Err(InvalidFormat { word: word.to_owned(), guess })
    }
}

/// The format that the word begins, else the one that a few typing errors make of it, one in three letters at most.
fn nearest(word: &str) -> Option<Format> {
    let is_begun = |format: &&Format| word.len() > 1 && format.as_str().starts_with(word);
    if let Some(format) = Format::ALL.iter().find(is_begun) {
        return Some(*format);
    }
    let distance = |format: &&Format| strsim::damerau_levenshtein(format.as_str(), word);
    let bearable = word.chars().count() / 3;
    Format::ALL.iter().filter(|format| distance(format) <= bearable).min_by_key(distance).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_guessed_from_its_begin_or_a_typing_error_and_from_nothing_else() {
        for (word, guess) in [
            ("istio_jsn", Some(Format::IstioJson)),
            ("istio", Some(Format::IstioJson)),
            ("zeek", Some(Format::ZeekJson)),
            ("postgres", Some(Format::PostgresCsv)),
            ("kafka_authoriser", Some(Format::KafkaAuthorizer)),
            ("nginx", None),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(nearest(word), guess, "{word}");
        }
        let told = |word: &str| word.parse::<Format>().expect_err("no format").to_string();
        assert_eq!(told("hubbel"), "`hubbel` is not a format; did you mean hubble? `qualm formats` lists them all");
        assert_eq!(told("nginx"), "`nginx` is not a format; `qualm formats` lists them all");
        assert!(Format::ALL.iter().all(|format| format.as_str().parse::<Format>().is_ok_and(|read| read == *format)));
    }
}
