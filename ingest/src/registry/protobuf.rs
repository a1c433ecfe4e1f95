//! Protobuf: `.proto` texts compiled in memory, and messages read by them.
//!
//! A row has a message's fields by their names in the `.proto`. Numbers are numbers, of 64 bits as well. A field without
//! presence is always there: on the wire, zero and nothing are the same.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, FileDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage as _, Value,
};
use protox::{
    Compiler,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver},
};

use super::{
    row::{self, MAX_DEPTH, RowText},
    wire::message_indexes,
};
use crate::source::Invalid;

/// The name of the schema itself; references have theirs.
const MAIN: &str = "qualm-registry-schema.proto";
/// Brackets within brackets: the compiler goes down with them.
const MAX_BRACKETS: u32 = 64;
/// What Confluent's registry knows without a reference to it.
const KNOWN: [(&str, &str); 2] = [
    (
        "confluent/meta.proto",
        r#"syntax = "proto3";
        package confluent;
        import "google/protobuf/descriptor.proto";
        message Meta { string doc = 1; map<string, string> params = 2; repeated string tags = 3; }
        extend google.protobuf.FileOptions { Meta file_meta = 1088; }
        extend google.protobuf.MessageOptions { Meta message_meta = 1088; }
        extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
        extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }
        extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }"#,
    ),
    (
        "confluent/type/decimal.proto",
        r#"syntax = "proto3";
        package confluent.type;
        message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }"#,
    ),
];

/// A compiled file.
#[derive(Debug)]
pub(super) struct Messages {
    file: FileDescriptor,
}

/// The files of one schema, by the names they import each other by.
#[derive(Debug)]
struct Texts(HashMap<String, String>);

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let known = || KNOWN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
        match self.0.get(name).map(String::as_str).or_else(known) {
            Some(text) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

impl Messages {
    /// Compiles a schema with the files that it imports.
    ///
    /// # Errors
    /// It is no `.proto` file, or imports what is not there.
    pub(super) fn of(schema: String, references: Vec<(String, String)>) -> Result<Self, String> {
        let mut texts: HashMap<String, String> = references.into_iter().collect();
        texts.insert(MAIN.to_owned(), schema);
        if texts.values().any(|text| brackets(text) > MAX_BRACKETS) {
            return Err(format!("its brackets are more than {MAX_BRACKETS} deep"));
        }
        let mut resolver = ChainFileResolver::new();
        resolver.add(Texts(texts));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(resolver);
        compiler.include_imports(true).include_source_info(false);
        compiler.open_file(MAIN).map_err(|error| error.to_string())?;
        let pool: DescriptorPool = compiler.descriptor_pool();
        let file = pool.get_file_by_name(MAIN).ok_or("it has no messages")?;
        Ok(Self { file })
    }

    /// Writes the row of a record.
    ///
    /// Errors: the record is cut off, is of another schema, is nested too deeply, or its row is too long.
    pub(super) fn read(&self, mut record: &[u8], row: &mut RowText<'_>) -> Result<(), Invalid> {
        let path = message_indexes(&mut record)?;
        let descriptor = self.message(&path).ok_or(Invalid::Syntax)?;
        let message = DynamicMessage::decode(descriptor, record).map_err(|_| Invalid::Syntax)?;
        write_message(&message, row, MAX_DEPTH)
    }

    fn message(&self, path: &[usize]) -> Option<MessageDescriptor> {
        let (&first, rest) = path.split_first()?;
        let mut message = self.file.messages().nth(first)?;
        for &place in rest {
            let child = message.child_messages().nth(place)?;
            message = child;
        }
        Some(message)
    }
}

/// How deep the brackets of a text go, without its comments and texts.
fn brackets(text: &str) -> u32 {
    let (mut depth, mut deepest) = (0_u32, 0);
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'{' | b'[' | b'(' | b'<' => depth += 1,
            b'}' | b']' | b')' | b'>' => depth = depth.saturating_sub(1),
            b'/' if rest.first() == Some(&b'/') => rest = behind_of(rest, b"\n"),
            b'/' if rest.first() == Some(&b'*') => rest = behind_of(&rest[1..], b"*/"),
            b'"' | b'\'' => rest = behind_text(rest, byte),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn behind_of<'a>(rest: &'a [u8], end: &[u8]) -> &'a [u8] {
    memchr::memmem::find(rest, end).map_or(&[], |at| &rest[at + end.len()..])
}

fn behind_text(mut rest: &[u8], quote: u8) -> &[u8] {
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'\\' => rest = rest.get(1..).unwrap_or_default(),
            // No text goes over the end of a line.
            b'\n' => return rest,
            _ if byte == quote => return rest,
            _ => {}
        }
    }
    rest
}

fn write_message(message: &DynamicMessage, row: &mut RowText<'_>, depth: u32) -> Result<(), Invalid> {
    let depth = depth.checked_sub(1).ok_or(Invalid::Syntax)?;
    let descriptor = message.descriptor();
    if descriptor.full_name().starts_with("google.protobuf.")
        && let Some(written) = write_known(message, &descriptor, row, depth)
    {
        return written;
    }
    row.raw("{")?;
    let mut is_first = true;
    for field in descriptor.fields() {
        let is_always = !field.supports_presence() && !field.is_list() && !field.is_map();
        if is_always || message.has_field(&field) {
            row.comma(&mut is_first)?;
            row.raw(&row::key(field.name()))?;
            write_value(&message.get_field(&field), &field.kind(), row, depth)?;
        }
    }
    row.raw("}")
}

/// Google's own messages that stand for a value. `None`: it is as any other.
fn write_known(
    message: &DynamicMessage,
    descriptor: &MessageDescriptor,
    row: &mut RowText<'_>,
    depth: u32,
) -> Option<Result<(), Invalid>> {
    let field = |name: &str| descriptor.get_field_by_name(name).map(|field| (message.get_field(&field), field));
    let whole = |name: &str| field(name).and_then(|(value, _)| value.as_i64().or(value.as_i32().map(i64::from)));
    match descriptor.name() {
        "Timestamp" => {
            let (seconds, nanos) = (whole("seconds")?, whole("nanos")?);
            let time = i32::try_from(nanos).ok().and_then(|nanos| jiff::Timestamp::new(seconds, nanos).ok());
            Some(time.ok_or(Invalid::ImpossibleTime).and_then(|time| row.quoted(time)))
        }
        "Duration" => {
            let (seconds, nanos) = (whole("seconds")?, whole("nanos")?);
            Some(row.float(seconds as f64 + nanos as f64 / 1e9))
        }
        "BoolValue" | "Int32Value" | "Int64Value" | "UInt32Value" | "UInt64Value" | "FloatValue" | "DoubleValue"
        | "StringValue" | "BytesValue" => {
            let (value, field) = field("value")?;
            Some(write_value(&value, &field.kind(), row, depth))
        }
        "Struct" => {
            let (value, field) = field("fields")?;
            Some(write_value(&value, &field.kind(), row, depth))
        }
        "ListValue" => {
            let (value, field) = field("values")?;
            Some(write_value(&value, &field.kind(), row, depth))
        }
        "Value" => {
            let is_set = |field: &FieldDescriptor| message.has_field(field) && field.name() != "null_value";
            let Some(field) = descriptor.fields().find(is_set) else { return Some(row.raw("null")) };
            Some(write_value(&message.get_field(&field), &field.kind(), row, depth))
        }
        _ => None,
    }
}

fn write_value(value: &Value, kind: &Kind, row: &mut RowText<'_>, depth: u32) -> Result<(), Invalid> {
    match value {
        Value::Bool(is_so) => row.raw(if *is_so { "true" } else { "false" }),
        Value::I32(number) => row.shown(number),
        Value::I64(number) => row.shown(number),
        Value::U32(number) => row.shown(number),
        Value::U64(number) => row.shown(number),
        Value::F32(number) if number.is_finite() => row.shown(number),
        Value::F32(number) => row.float((*number).into()),
        Value::F64(number) => row.float(*number),
        Value::String(text) => row.text(text),
        Value::Bytes(bytes) => row.bytes(bytes),
        Value::EnumNumber(number) => match kind.as_enum().and_then(|of| of.get_value(*number)) {
            Some(named) => row.text(named.name()),
            None => row.shown(number),
        },
        Value::Message(message) => write_message(message, row, depth),
        Value::List(values) => {
            row.raw("[")?;
            let mut is_first = true;
            for value in values {
                row.comma(&mut is_first)?;
                write_value(value, kind, row, depth)?;
            }
            row.raw("]")
        }
        Value::Map(entries) => {
            let Kind::Message(entry) = kind else { return Err(Invalid::Syntax) };
            let kind = entry.map_entry_value_field().kind();
            row.raw("{")?;
            let mut is_first = true;
            for (key, value) in entries {
                row.comma(&mut is_first)?;
                write_key(key, row)?;
                write_value(value, &kind, row, depth)?;
            }
            row.raw("}")
        }
    }
}

fn write_key(key: &MapKey, row: &mut RowText<'_>) -> Result<(), Invalid> {
    match key {
        MapKey::String(text) => row.text(text),
        MapKey::Bool(is_so) => row.quoted(is_so),
        MapKey::I32(number) => row.quoted(number),
        MapKey::I64(number) => row.quoted(number),
        MapKey::U32(number) => row.quoted(number),
        MapKey::U64(number) => row.quoted(number),
    }?;
    row.raw(":")
}
