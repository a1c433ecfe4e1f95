//! A request in JSON, gone through record by record: texts are left as they were written, and nothing is gathered but what
//! one record says of itself.

use super::{Attribute, Body, LogRecord, Words, placed};
use crate::{
    envelope::{
        Contents, Wrapping,
        memo::Memo,
        object::{ESCAPED_OBJECT, Object, line_end},
    },
    parse::json::{Lexer, Stretch, Value, unescape},
    source::Invalid,
};

/// A request in the reading. What has another type than OTLP says is left out.
#[derive(Debug, Clone)]
pub(super) struct Walk<'a> {
    reader: Reader<'a>,
    /// What is known of the request.
    outer: Wrapping<'a>,
    /// The same with what the resource says, whose records come.
    within: Wrapping<'a>,
    /// Whether the resource has said it.
    is_placed: bool,
    level: Level,
}

/// In what the next key, or element, is.
#[derive(Debug, Clone, Copy)]
enum Level {
    Request,
    AllLogs,
    Logs,
    Scopes,
    Scope,
    Records,
}

impl<'a> Walk<'a> {
    /// The request that `text` is, before its first record.
    ///
    /// Errors: it is no object.
    pub(super) fn new(text: &'a str, outer: &Wrapping<'a>) -> Result<Self, Invalid> {
        let mut reader = Reader { text, lexer: Lexer::new(text) };
        reader.lexer.begin()?;
        Ok(Self { reader, outer: *outer, within: *outer, is_placed: false, level: Level::Request })
    }

    /// What is known of the record that is next, beside what it says itself.
    pub(super) fn within(&self) -> Wrapping<'a> {
        self.within
    }

    /// Goes on to the next log record. Whether there is one. Resources that were read before are recognised as a whole.
    ///
    /// Errors: the text is not well-formed up to there, or cut off.
    pub(super) fn advance(&mut self, memo: &mut Memo) -> Result<bool, Invalid> {
        loop {
            match self.level {
                Level::Request => match self.reader.lexer.key()? {
                    Some("resourceLogs" | "resource_logs") => self.enter_list(Level::AllLogs)?,
                    Some(_) => self.reader.lexer.skip_value()?,
                    None => return self.reader.lexer.clone().end().map(|()| false),
                },
                Level::AllLogs if self.reader.lexer.element()? => {
                    (self.within, self.is_placed) = (self.outer, false);
                    self.enter_object(Level::Logs)?;
                }
                Level::AllLogs => self.level = Level::Request,
                Level::Logs => match self.reader.lexer.key()? {
                    Some("resource") if !self.is_placed => self.place(memo)?,
                    Some("scopeLogs" | "scope_logs") => {
                        self.look_ahead(memo)?;
                        self.enter_list(Level::Scopes)?;
                    }
                    Some(_) => self.reader.lexer.skip_value()?,
                    None => self.level = Level::AllLogs,
                },
                Level::Scopes if self.reader.lexer.element()? => self.enter_object(Level::Scope)?,
                Level::Scopes => self.level = Level::Logs,
                Level::Scope => match self.reader.lexer.key()? {
                    Some("logRecords" | "log_records") => self.enter_list(Level::Records)?,
                    Some(_) => self.reader.lexer.skip_value()?,
                    None => self.level = Level::Scopes,
                },
                Level::Records if self.reader.lexer.element()? => return Ok(true),
                Level::Records => self.level = Level::Scope,
            }
        }
    }

    /// Goes into the array that is next; anything else is stepped over.
    fn enter_list(&mut self, level: Level) -> Result<(), Invalid> {
        match self.reader.lexer.value()? {
            Value::Array => self.level = level,
            Value::Object => self.reader.lexer.skip_rest()?,
            _ => {}
        }
        Ok(())
    }

    /// The same of an object.
    fn enter_object(&mut self, level: Level) -> Result<(), Invalid> {
        match self.reader.lexer.value()? {
            Value::Object => self.level = level,
            Value::Array => self.reader.lexer.skip_rest()?,
            _ => {}
        }
        Ok(())
    }

    /// Reads the resource that is next.
    fn place(&mut self, memo: &mut Memo) -> Result<(), Invalid> {
        self.is_placed = true;
        let (text, unread) = (self.reader.text, self.reader.lexer.rest());
        let rest = unread.trim_ascii_start();
        let offset = text.len() - rest.len();
        if let Some((bytes, places)) = memo.find(rest) {
            self.within = Object::of_places(places, offset).wrapping(text, &self.outer);
            self.reader.lexer.step_over(bytes + unread.len() - rest.len());
            return Ok(());
        }
        let mut attributes = Vec::new();
        self.reader.each_key(|reader, key| {
            match key {
                "attributes" => attributes = reader.list(Reader::attribute)?,
                _ => reader.lexer.skip_value()?,
            }
            Ok(())
        })?;
        self.within = placed(&attributes, &self.outer);
        let own = placed(&attributes, &Wrapping::default());
        // Of a file and an output no place is remembered.
        if own.file.is_empty() && own.stream.is_empty() && rest.starts_with('{') {
            let bytes = rest.len() - self.reader.lexer.rest().len();
            memo.keep(rest, bytes, Object::of_origin(text, &own.origin).places(), offset);
        }
        Ok(())
    }

    /// Looks for the resource behind its records, if it did not come before them.
    fn look_ahead(&mut self, memo: &mut Memo) -> Result<(), Invalid> {
        if self.is_placed {
            return Ok(());
        }
        let mut ahead = self.clone();
        ahead.reader.lexer.skip_value()?;
        while let Some(key) = ahead.reader.lexer.key()? {
            if key == "resource" {
                ahead.place(memo)?;
                break;
            }
            ahead.reader.lexer.skip_value()?;
        }
        (self.within, self.is_placed) = (ahead.within, true);
        Ok(())
    }

    /// Reads the record that is next.
    ///
    /// Errors: it is not well-formed.
    pub(super) fn log_record(&mut self) -> Result<LogRecord<'a>, Invalid> {
        let mut record = LogRecord::default();
        self.reader.each_key(|reader, key| reader.part_of_record(key, &mut record))?;
        Ok(record)
    }

    /// Reads the record that is next where its line stands, and goes on to the one after it: whether there is one. `None`
    /// where it must be read as a whole first.
    pub(super) fn take_in_place(&mut self, contents: &mut impl Contents, memo: &mut Memo) -> Option<bool> {
        let (within, mut record, mut has_more) = (self.within, LogRecord::default(), false);
        self.reader.up_to_line(&mut record).ok()??;
        let line = self.reader.lexer.rest().strip_prefix('"')?;
        contents.take_escaped(line, &mut |end| {
            self.reader.after_line(line, end, &mut record)?;
            has_more = self.advance(memo).ok()?;
            Some(record.placed(&within).origin)
        })?;
        Some(has_more)
    }
}

/// Reads a text value by value.
#[derive(Debug, Clone)]
struct Reader<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
}

impl<'a> Reader<'a> {
    /// The keys of the object that is next; anything else has none.
    fn each_key(&mut self, mut of: impl FnMut(&mut Self, &'a str) -> Result<(), Invalid>) -> Result<(), Invalid> {
        match self.lexer.value()? {
            Value::Object => {
                while let Some(key) = self.lexer.key()? {
                    of(self, key)?;
                }
                Ok(())
            }
            Value::Array => self.lexer.skip_rest(),
            _ => Ok(()),
        }
    }

    /// The values of the array that is next; anything else has none.
    fn list<T>(&mut self, of: impl Fn(&mut Self) -> Result<T, Invalid>) -> Result<Vec<T>, Invalid> {
        let mut values = Vec::new();
        match self.lexer.value()? {
            Value::Array => {
                while self.lexer.element()? {
                    values.push(of(self)?);
                }
            }
            Value::Object => self.lexer.skip_rest()?,
            _ => {}
        }
        Ok(values)
    }

    /// Reads the value of one of a record's keys.
    fn part_of_record(&mut self, key: &str, record: &mut LogRecord<'a>) -> Result<(), Invalid> {
        match key {
            "timeUnixNano" | "time_unix_nano" => {
                let digits = self.number()?.unwrap_or("");
                record.time_unix_nano = digits.parse().unwrap_or(0);
                if record.time_unix_nano != 0 {
                    record.written = digits;
                }
            }
            "observedTimeUnixNano" | "observed_time_unix_nano" => {
                let digits = self.number()?.unwrap_or("");
                record.observed_time_unix_nano = digits.parse().unwrap_or(0);
                if record.time_unix_nano == 0 {
                    record.written = digits;
                }
            }
            "body" => record.body = self.body()?,
            "attributes" => record.attributes = self.list(Self::attribute)?,
            _ => self.lexer.skip_value()?,
        }
        Ok(())
    }

    /// Reads a record up to its line, where that is an escaped object.
    fn up_to_line(&mut self, record: &mut LogRecord<'a>) -> Result<Option<()>, Invalid> {
        if self.lexer.value()? != Value::Object {
            return Ok(None);
        }
        while let Some(key) = self.lexer.key()? {
            if key != "body" {
                self.part_of_record(key, record)?;
                continue;
            }
            let is_text = self.lexer.value()? == Value::Object
                && matches!(self.lexer.key()?, Some("stringValue" | "string_value"))
                && self.lexer.rest().starts_with(ESCAPED_OBJECT);
            return Ok(is_text.then_some(()));
        }
        Ok(None)
    }

    /// Reads what is left of a record behind its line, which ends at byte `end` of what begins with it.
    fn after_line(&mut self, line: &str, end: usize, record: &mut LogRecord<'a>) -> Option<()> {
        let bytes = end + line_end(line.get(end..)?);
        line[bytes..].strip_prefix('"')?;
        self.lexer.step_over(bytes + 2);
        while self.lexer.key().ok()?.is_some() {
            self.lexer.skip_value().ok()?;
        }
        while let Some(key) = self.lexer.key().ok()? {
            self.part_of_record(key, record).ok()?;
        }
        Some(())
    }

    fn attribute(&mut self) -> Result<Attribute<'a>, Invalid> {
        let mut attribute = Attribute::default();
        self.each_key(|reader, key| {
            match key {
                "key" => attribute.key = reader.words()?.map_or("", Words::plain),
                "value" => attribute.value = reader.body()?,
                _ => reader.lexer.skip_value()?,
            }
            Ok(())
        })?;
        Ok(attribute)
    }

    fn body(&mut self) -> Result<Body<'a>, Invalid> {
        let mut body = Body::default();
        self.each_key(|reader, key| {
            match key {
                "stringValue" | "string_value" => body.string_value = reader.words()?,
                "intValue" | "int_value" => body.int_value = reader.whole()?,
                "doubleValue" | "double_value" => body.double_value = reader.number()?.and_then(|it| it.parse().ok()),
                "boolValue" | "bool_value" => body.bool_value = reader.truth()?,
                "kvlistValue" | "kvlist_value" => body.kvlist_value = Some(reader.entries()?),
                _ => reader.lexer.skip_value()?,
            }
            Ok(())
        })?;
        Ok(body)
    }

    fn entries(&mut self) -> Result<Vec<Attribute<'a>>, Invalid> {
        let mut entries = Vec::new();
        self.each_key(|reader, key| {
            match key {
                "values" => entries = reader.list(Self::attribute)?,
                _ => reader.lexer.skip_value()?,
            }
            Ok(())
        })?;
        Ok(entries)
    }

    /// The next value, if it is no more than one; objects and arrays are stepped over.
    fn single(&mut self) -> Result<Option<Value>, Invalid> {
        match self.lexer.value()? {
            Value::Object | Value::Array => self.lexer.skip_rest().map(|()| None),
            value => Ok(Some(value)),
        }
    }

    fn words(&mut self) -> Result<Option<Words<'a>>, Invalid> {
        Ok(match self.single()? {
            Some(Value::Text(text)) => Some(Words::Plain(self.of(text))),
            Some(Value::Escaped(written)) => {
                let written = self.of(written);
                // Only of records are there many, and those are read as they are written.
                if !written.starts_with("{\\\"") {
                    unescape(written, &mut String::new())?;
                }
                Some(Words::Escaped(written))
            }
            _ => None,
        })
    }

    /// 64-bit numbers are texts in JSON.
    fn whole(&mut self) -> Result<Option<i64>, Invalid> {
        Ok(self.number()?.and_then(|digits| digits.parse().ok()))
    }

    fn number(&mut self) -> Result<Option<&'a str>, Invalid> {
        Ok(match self.single()? {
            Some(Value::Number(digits) | Value::Text(digits)) => Some(self.of(digits)),
            _ => None,
        })
    }

    fn truth(&mut self) -> Result<Option<bool>, Invalid> {
        Ok(if let Some(Value::Bool(is_so)) = self.single()? { Some(is_so) } else { None })
    }

    fn of(&self, stretch: Stretch) -> &'a str {
        stretch.of(self.text)
    }
}
