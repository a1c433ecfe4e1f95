//! A place in a JSON record that the configuration names (RFC 6901).

use super::object::Text;
use crate::{
    parse::json::{Lexer, Stretch, Value},
    source::Invalid,
};

/// The keys and indices that lead there.
#[derive(Debug)]
pub(super) struct Pointer {
    steps: Vec<String>,
}

/// What stands there.
#[derive(Debug)]
pub(super) enum Found {
    Text(Text),
    Object(Stretch),
}

impl Pointer {
    pub(super) fn new(pointer: &str) -> Self {
        let step = |step: &str| step.replace("~1", "/").replace("~0", "~");
        Self { steps: pointer.split('/').skip(1).map(step).collect() }
    }

    /// What stands there in `text`, if that is a text or an object.
    ///
    /// Errors: the record is not well-formed, or cut off.
    pub(super) fn find(&self, text: &str) -> Result<Option<Found>, Invalid> {
        let mut lexer = Lexer::new(text);
        let mut found = None;
        let start = lexer.value()?;
        self.walk(&self.steps, start, text, &mut lexer, &mut found)?;
        lexer.end()?;
        Ok(found)
    }

    fn walk<'a>(
        &self,
        steps: &[String],
        value: Value,
        text: &'a str,
        lexer: &mut Lexer<'a>,
        found: &mut Option<Found>,
    ) -> Result<(), Invalid> {
        let Some((step, later)) = steps.split_first() else {
            *found = match value {
                Value::Text(stretch) => Some(Found::Text(Text::Plain(stretch))),
                Value::Escaped(stretch) => Some(Found::Text(Text::Escaped(stretch))),
                Value::Object => {
                    let start = text.len() - lexer.rest().len() - 1;
                    lexer.skip_rest()?;
                    Some(Found::Object(Stretch::new(start, text.len() - lexer.rest().len())))
                }
                Value::Array => return lexer.skip_rest(),
                Value::Null | Value::Bool(_) | Value::Number(_) => None,
            };
            return Ok(());
        };
        match value {
            Value::Object => {
                while let Some(key) = lexer.key()? {
                    if key == step {
                        let value = lexer.value()?;
                        self.walk(later, value, text, lexer, found)?;
                    } else {
                        lexer.skip_value()?;
                    }
                }
                Ok(())
            }
            // Arrays of records are not met under a pointer: shippers write one record a message.
            Value::Array => lexer.skip_rest(),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pointer: &str, text: &str) -> Result<Option<String>, Invalid> {
        Ok(Pointer::new(pointer).find(text)?.map(|found| match found {
            Found::Text(Text::Plain(stretch) | Text::Escaped(stretch)) | Found::Object(stretch) => {
                stretch.of(text).to_owned()
            }
        }))
    }

    #[test]
    fn a_pointer_leads_to_texts_and_objects() {
        let text = r#"{"x":[{"a":1}],"a":{"b~/c":"one","d": {"e":[1]} },"n":1}"#;
        assert_eq!(found("/a/b~0~1c", text), Ok(Some("one".to_owned())));
        assert_eq!(found("/a/d", text), Ok(Some(r#"{"e":[1]}"#.to_owned())));
        for nothing in ["/a/x", "/n", "/x", "/x/a", "/n/a", "/a/b~0~1c/d"] {
            assert_eq!(found(nothing, text), Ok(None), "{nothing}");
        }
        assert_eq!(found("/a/d", &text[..text.len() - 1]), Err(Invalid::Syntax));
    }
}
