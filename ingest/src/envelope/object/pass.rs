//! The pass itself: key by key, each value taken or stepped over.

use super::{Key, Object, Place, Text, key::key_of};
use crate::{
    envelope::{docker, memo::Memo, path},
    parse::json::{Lexer, Stretch, Value},
    source::Invalid,
};

/// Where the reading of keys pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Never,
    /// Before the text that an escaped JSON record is.
    BeforeRecord,
}

/// What a text with an escaped object in it begins with.
pub(in crate::envelope) const ESCAPED_OBJECT: &str = "\"{\\\"";

impl Object {
    /// Reads the keys of the envelope itself.
    pub(super) fn read_top<'a>(
        &mut self,
        text: &'a str,
        lexer: &mut Lexer<'a>,
        path: &mut String,
        memo: &mut Memo,
        stop: Stop,
    ) -> Result<(), Invalid> {
        loop {
            path.clear();
            let expected = memo.key_at(self.keys_read).filter(|(quoted, _)| lexer.take_key(quoted.as_bytes()));
            let found = if let Some((quoted, key)) = expected {
                path.push_str(&quoted[1..quoted.len() - 2]);
                key
            } else {
                let Some(name) = lexer.key()? else { return Ok(()) };
                let key = key_of(name.as_bytes());
                path.push_str(name);
                memo.keep_key(self.keys_read, name, key);
                key
            };
            self.keys_read += 1;
            match found {
                None => lexer.skip_value()?,
                Some(Key::Metadata) => self.read_metadata(text, lexer, memo)?,
                Some(Key::Record) if stop == Stop::BeforeRecord && lexer.rest().starts_with(ESCAPED_OBJECT) => {
                    self.is_log = path == docker::LOG;
                    return Ok(());
                }
                Some(key) => self.read_value(key, text, lexer, path, memo)?,
            }
        }
    }

    /// Reads the keys of an object within it, whose path is known.
    fn read_keys<'a>(
        &mut self,
        text: &'a str,
        lexer: &mut Lexer<'a>,
        path: &mut String,
        memo: &mut Memo,
    ) -> Result<(), Invalid> {
        let outer = path.len();
        while let Some(name) = lexer.key()? {
            path.truncate(outer);
            path.push('.');
            path.push_str(name);
            match key_of(path.as_bytes()) {
                None => lexer.skip_value()?,
                Some(Key::Metadata) => self.read_metadata(text, lexer, memo)?,
                Some(key) => self.read_value(key, text, lexer, path, memo)?,
            }
        }
        path.truncate(outer);
        Ok(())
    }

    fn read_value<'a>(
        &mut self,
        key: Key,
        text: &'a str,
        lexer: &mut Lexer<'a>,
        path: &mut String,
        memo: &mut Memo,
    ) -> Result<(), Invalid> {
        let start = text.len() - lexer.rest().trim_ascii_start().len();
        match lexer.value()? {
            Value::Object => match key {
                Key::Record | Key::Nested | Key::Within | Key::Place(_) | Key::File => {
                    self.read_keys(text, lexer, path, memo)?;
                    if matches!(key, Key::Record | Key::Nested) && self.nested.is_none() {
                        self.nested = Some(Stretch::new(start, text.len() - lexer.rest().len()));
                    }
                }
                _ => {
                    lexer.skip_rest()?;
                    self.set_sign(key);
                }
            },
            Value::Array => {
                lexer.skip_rest()?;
                self.set_sign(key);
                self.holds_otlp |= key == Key::Otlp;
            }
            Value::Text(value) if key == Key::Record => self.set_record(Text::Plain(value), path),
            Value::Text(value) => self.set(key, value, text),
            Value::Escaped(value) if key == Key::Record => self.set_record(Text::Escaped(value), path),
            Value::Number(value) if matches!(key, Key::Time(_)) => self.set(key, value, text),
            Value::Bool(is_so) => self.set_flag(key, is_so),
            // No name has escapes in it.
            Value::Escaped(_) | Value::Number(_) | Value::Null => {}
        }
        Ok(())
    }

    /// What the shipper says of the pod: mostly what it has said before.
    fn read_metadata<'a>(&mut self, text: &'a str, lexer: &mut Lexer<'a>, memo: &mut Memo) -> Result<(), Invalid> {
        let rest = lexer.rest().trim_ascii_start();
        let offset = text.len() - rest.len();
        if let Some((bytes, places)) = memo.find(rest) {
            self.place_all(places, offset);
            self.is_placed = true;
            lexer.step_over(bytes + lexer.rest().len() - rest.len());
            return Ok(());
        }
        match lexer.value()? {
            Value::Object => {
                self.read_keys(text, lexer, &mut "kubernetes".to_owned(), memo)?;
                self.is_placed = true;
                memo.keep(rest, rest.len() - lexer.rest().len(), &self.places, offset);
            }
            Value::Array => lexer.skip_rest()?,
            _ => {}
        }
        Ok(())
    }

    fn set_record(&mut self, record: Text, path: &str) {
        if self.record.is_none() {
            (self.record, self.is_log) = (Some(record), path == docker::LOG);
        }
    }

    fn set_sign(&mut self, key: Key) {
        if let Key::Sign(kind) = key {
            self.signed = Some(kind);
        }
    }

    fn set_flag(&mut self, key: Key, is_so: bool) {
        match key {
            Key::Unfinished => self.goes_on |= is_so,
            Key::Last => self.is_last |= is_so,
            _ => {}
        }
    }

    fn set(&mut self, key: Key, value: Stretch, text: &str) {
        match key {
            Key::Stream => {
                self.is_streamed |= matches!(value.of(text), "stdout" | "stderr");
                self.stream = value;
            }
            Key::Time(kind) if self.time.is_none() => (self.time, self.timed) = (Some(value), Some(kind)),
            Key::File => self.file = value,
            Key::ContainerFile if path::is_of_container(value.of(text)) => self.file = value,
            Key::Tag => {
                self.is_tagged = matches!(value.of(text), "F" | "P");
                self.goes_on |= value.of(text) == "P";
            }
            Key::Unfinished | Key::Last => self.set_flag(key, value.of(text) == "true"),
            Key::Sign(_) => self.set_sign(key),
            Key::Place(place) => self.put(place, value),
            Key::Record | Key::Nested | Key::Metadata | Key::Within | Key::Otlp | Key::ContainerFile | Key::Time(_) => {
            }
        }
    }

    fn put(&mut self, place: Place, value: Stretch) {
        let kept = &mut self.places[place as usize];
        let length = |stretch: Stretch| stretch.bounds().1 - stretch.bounds().0;
        // The name of a Deployment is the beginning of its ReplicaSet's, that of a CronJob of its Job's.
        let is_nearer = place == Place::Owner && length(value) > 0 && length(value) < length(*kept);
        if length(*kept) == 0 || is_nearer {
            *kept = value;
        }
        self.is_placed |= !matches!(place, Place::Cluster | Place::Host | Place::Container);
    }
}
