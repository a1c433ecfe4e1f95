//! The formats by name: one line each in the table below, and everything else follows from it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    InvalidParser, Row,
    auto::Auto,
    istio_json::IstioJson,
    istio_text::IstioText,
    mapped::{Mapped, Mapping},
    vault_audit::VaultAudit,
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
                    $(Self::$variant(reader) => reader.parse(text, row),)*
                    Self::Mapped(reader) => reader.parse(text, row),
                    Self::Auto(reader) => reader.parse(text, row),
                }
            }
        }
    };
}

impl Grammar {
    /// Reads a line that stands in a JSON string as it was written there, where the format can read it so. `None`
    /// where it cannot: it must be unescaped first.
    #[inline]
    pub(super) fn parse_escaped(&mut self, line: &str, row: &mut Row<'_>) -> Option<()> {
        match self {
            Self::IstioJson(reader) => reader.parse_escaped(line, row).ok(),
            _ => None,
        }
    }
}

formats! {
    IstioJson "istio_json" IstioJson,
        "Envoy's access log as JSON with Istio's 24 keys, and lower-case Envoy operators beside them.";
    IstioText "istio_text" IstioText, "Istio's default text format of 22 fields.";
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
