//! A request in JSON, read in one pass: texts are left as they were written.

use super::{Attribute, Body, LogRecord, Request, Resource, ResourceLogs, ScopeLogs, Words};
use crate::{
    parse::json::{Lexer, Stretch, Value, unescape},
    source::Invalid,
};

/// Reads a request. What has another type than OTLP says is left out.
///
/// Errors: the text is not well-formed, or cut off.
pub(super) fn request(text: &str) -> Result<Request<'_>, Invalid> {
    let mut reader = Reader { text, lexer: Lexer::new(text) };
    let mut request = Request::default();
    reader.each_key(|reader, key| {
        match key {
            "resourceLogs" | "resource_logs" => request.resource_logs = reader.list(Reader::resource_logs)?,
            _ => reader.lexer.skip_value()?,
        }
        Ok(())
    })?;
    reader.lexer.end()?;
    Ok(request)
}

/// Reads a text value by value.
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

    fn resource_logs(&mut self) -> Result<ResourceLogs<'a>, Invalid> {
        let mut logs = ResourceLogs::default();
        self.each_key(|reader, key| {
            match key {
                "resource" => logs.resource = reader.resource()?,
                "scopeLogs" | "scope_logs" => logs.scope_logs = reader.list(Self::scope_logs)?,
                _ => reader.lexer.skip_value()?,
            }
            Ok(())
        })?;
        Ok(logs)
    }

    fn resource(&mut self) -> Result<Resource<'a>, Invalid> {
        let mut resource = Resource::default();
        self.each_key(|reader, key| {
            match key {
                "attributes" => resource.attributes = reader.list(Self::attribute)?,
                _ => reader.lexer.skip_value()?,
            }
            Ok(())
        })?;
        Ok(resource)
    }

    fn scope_logs(&mut self) -> Result<ScopeLogs<'a>, Invalid> {
        let mut logs = ScopeLogs::default();
        self.each_key(|reader, key| {
            match key {
                "logRecords" | "log_records" => logs.log_records = reader.list(Self::log_record)?,
                _ => reader.lexer.skip_value()?,
            }
            Ok(())
        })?;
        Ok(logs)
    }

    fn log_record(&mut self) -> Result<LogRecord<'a>, Invalid> {
        let mut record = LogRecord::default();
        let (mut written, mut observed) = ("", "");
        let number = |digits: &str| digits.parse().unwrap_or(0);
        self.each_key(|reader, key| {
            match key {
                "timeUnixNano" | "time_unix_nano" => written = reader.number()?.unwrap_or(""),
                "observedTimeUnixNano" | "observed_time_unix_nano" => observed = reader.number()?.unwrap_or(""),
                "body" => record.body = reader.body()?,
                "attributes" => record.attributes = reader.list(Self::attribute)?,
                _ => reader.lexer.skip_value()?,
            }
            Ok(())
        })?;
        (record.time_unix_nano, record.observed_time_unix_nano) = (number(written), number(observed));
        record.written = if record.time_unix_nano == 0 { observed } else { written };
        Ok(record)
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
