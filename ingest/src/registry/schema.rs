//! What a registry has written down of a schema, and records read by it.

use serde::Deserialize;

use super::{avro::Plan, protobuf::Messages, row::RowText};
use crate::source::Invalid;

/// What a schema is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Apache Avro.
    Avro,
    /// Protocol Buffers.
    Protobuf,
    /// JSON Schema: records are JSON, and are not held against it.
    Json,
}

impl Kind {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Avro => "Avro",
            Self::Protobuf => "Protobuf",
            Self::Json => "JSON",
        }
    }
}

/// A registry's answer about one schema.
#[derive(Debug, Deserialize)]
pub(super) struct Written {
    pub(super) schema: String,
    /// Left out for Avro.
    #[serde(default, rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    pub(super) references: Option<Vec<Reference>>,
}

/// Another schema that it names.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Reference {
    /// What it is called there: the file of an `import`, or the full name of a type.
    pub(super) name: String,
    pub(super) subject: String,
    pub(super) version: i64,
}

/// A schema that records can be read by.
#[derive(Debug)]
pub(super) struct Schema {
    reader: Reader,
    /// Length of its texts, which stands for what it takes in memory.
    bytes: usize,
}

#[derive(Debug)]
enum Reader {
    Avro(Plan),
    Protobuf(Messages),
    Json,
}

impl Schema {
    /// Makes a reader of a schema and of those that it names: with the name it names them by.
    ///
    /// # Errors
    /// Why records cannot be read by it.
    pub(super) fn compile(written: Written, references: Vec<(String, String)>) -> Result<Self, String> {
        let bytes = written.schema.len() + references.iter().map(|(_, text)| text.len()).sum::<usize>();
        let reader = match written.kind.as_deref() {
            None | Some("AVRO") => {
                let texts: Vec<String> = references.into_iter().map(|(_, text)| text).collect();
                Reader::Avro(Plan::of(&written.schema, &texts)?)
            }
            Some("PROTOBUF") => Reader::Protobuf(Messages::of(written.schema, references)?),
            Some("JSON") => Reader::Json,
            Some(_) => return Err("it is neither Avro, Protobuf nor JSON".to_owned()),
        };
        Ok(Self { reader, bytes })
    }

    pub(super) fn kind(&self) -> Kind {
        match self.reader {
            Reader::Avro(_) => Kind::Avro,
            Reader::Protobuf(_) => Kind::Protobuf,
            Reader::Json => Kind::Json,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes the row of a record into `out`.
    pub(super) fn read(&self, payload: &[u8], max_bytes: usize, out: &mut String) -> Result<(), Invalid> {
        let mut row = RowText::begin(out, max_bytes);
        match &self.reader {
            Reader::Avro(plan) => plan.read(payload, &mut row),
            Reader::Protobuf(messages) => messages.read(payload, &mut row),
            Reader::Json => row.raw(str::from_utf8(payload).map_err(|_| Invalid::Encoding)?),
        }
    }
}
