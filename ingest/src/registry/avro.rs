//! Avro: a schema as a plan to read records by. `reading` reads them.
//!
//! apache-avro reads the schema, and knows names, namespaces and references. Records are read here and not by it: it
//! builds a value of each, with lists as long as a record says they are and as deep as a record says they go; and a row
//! of JSON is all that is wanted.

mod reading;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use apache_avro::{
    Schema,
    schema::{InnerDecimalSchema, Name, NamespaceRef, UuidSchema},
};

use super::row;

/// Places of a plan: a schema that names a type a hundred times has it once.
const MAX_NODES: usize = 16_384;

/// A schema whose names are resolved to places.
#[derive(Debug)]
pub(super) struct Plan {
    nodes: Vec<Node>,
    root: usize,
}

/// What is read at a place; `usize` is the place of a part.
#[derive(Debug)]
enum Node {
    Null,
    Boolean,
    Whole,
    Float,
    Double,
    Bytes,
    Text,
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    /// Each field's key as JSON, with its colon.
    Record(Vec<(String, usize)>),
    /// The symbols.
    Enum(Vec<String>),
    Fixed(usize),
    /// Digits behind the point; of a fixed length or with their length in front.
    Decimal {
        scale: usize,
        size: Option<usize>,
    },
    BigDecimal,
    Uuid(Option<usize>),
    Date,
    /// How many of its units make a second.
    Instant {
        per_second: i64,
    },
    /// The same without a zone.
    LocalInstant {
        per_second: i64,
    },
}

impl Plan {
    /// The plan of a schema, with those that it names.
    ///
    /// # Errors
    /// It is no Avro schema, names what is not there, or is too large.
    pub(super) fn of(schema: &str, references: &[String]) -> Result<Self, String> {
        let (schema, references) =
            Schema::parse_str_with_list(schema, references).map_err(|error| error.to_string())?;
        let mut planning = Planning::default();
        for reference in &references {
            planning.place(reference, None)?;
        }
        let root = planning.place(&schema, None)?;
        let nodes = planning.nodes.into_iter().collect::<Option<Vec<Node>>>();
        Ok(Self { nodes: nodes.ok_or("it names a type that is not there")?, root })
    }
}

#[derive(Debug, Default)]
struct Planning {
    /// `None`: named, and not there yet.
    nodes: Vec<Option<Node>>,
    named: HashMap<Name, usize>,
}

impl Planning {
    fn place(&mut self, schema: &Schema, within: NamespaceRef<'_>) -> Result<usize, String> {
        if let Schema::Ref { name } = schema {
            return self.place_of_name(name, within);
        }
        let (place, within) = match schema.name() {
            Some(name) => {
                let name = name.fully_qualified_name(within).into_owned();
                let namespace = name.namespace().map(str::to_owned);
                let place = self.place_of_name(&name, None)?;
                if self.nodes[place].is_some() {
                    return Ok(place);
                }
                (place, namespace)
            }
            None => (self.new_place()?, within.map(str::to_owned)),
        };
        let node = self.node(schema, within.as_deref())?;
        self.nodes[place] = Some(node);
        Ok(place)
    }

    fn place_of_name(&mut self, name: &Name, within: NamespaceRef<'_>) -> Result<usize, String> {
        let name = name.fully_qualified_name(within).into_owned();
        if let Some(&place) = self.named.get(&name) {
            return Ok(place);
        }
        let place = self.new_place()?;
        self.named.insert(name, place);
        Ok(place)
    }

    fn new_place(&mut self) -> Result<usize, String> {
        if self.nodes.len() >= MAX_NODES {
            return Err(format!("it has more than {MAX_NODES} types"));
        }
        self.nodes.push(None);
        Ok(self.nodes.len() - 1)
    }

    fn node(&mut self, schema: &Schema, within: NamespaceRef<'_>) -> Result<Node, String> {
        Ok(match schema {
            Schema::Null => Node::Null,
            Schema::Boolean => Node::Boolean,
            Schema::Int | Schema::Long | Schema::TimeMillis | Schema::TimeMicros => Node::Whole,
            Schema::Float => Node::Float,
            Schema::Double => Node::Double,
            Schema::Bytes => Node::Bytes,
            Schema::String => Node::Text,
            Schema::Array(array) => Node::Array(self.place(&array.items, within)?),
            Schema::Map(map) => Node::Map(self.place(&map.types, within)?),
            Schema::Union(union) => {
                let places = union.variants().iter().map(|variant| self.place(variant, within));
                Node::Union(places.collect::<Result<_, _>>()?)
            }
            Schema::Record(record) => {
                let fields = record.fields.iter();
                let fields = fields.map(|field| Ok((row::key(&field.name), self.place(&field.schema, within)?)));
                Node::Record(fields.collect::<Result<_, String>>()?)
            }
            Schema::Enum(of) => Node::Enum(of.symbols.clone()),
            Schema::Fixed(fixed) | Schema::Duration(fixed) => Node::Fixed(fixed.size),
            Schema::Decimal(decimal) => Node::Decimal {
                scale: decimal.scale,
                size: match &decimal.inner {
                    InnerDecimalSchema::Bytes => None,
                    InnerDecimalSchema::Fixed(fixed) => Some(fixed.size),
                },
            },
            Schema::BigDecimal => Node::BigDecimal,
            Schema::Uuid(UuidSchema::String) => Node::Text,
            Schema::Uuid(UuidSchema::Bytes) => Node::Uuid(None),
            Schema::Uuid(UuidSchema::Fixed(fixed)) => Node::Uuid(Some(fixed.size)),
            Schema::Date => Node::Date,
            Schema::TimestampMillis => Node::Instant { per_second: 1_000 },
            Schema::TimestampMicros => Node::Instant { per_second: 1_000_000 },
            Schema::TimestampNanos => Node::Instant { per_second: 1_000_000_000 },
            Schema::LocalTimestampMillis => Node::LocalInstant { per_second: 1_000 },
            Schema::LocalTimestampMicros => Node::LocalInstant { per_second: 1_000_000 },
            Schema::LocalTimestampNanos => Node::LocalInstant { per_second: 1_000_000_000 },
            Schema::Ref { name } => return Err(format!("`{}` stands for itself", name.fullname(within))),
        })
    }
}
