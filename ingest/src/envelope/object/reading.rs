//! An envelope whose record is read where it stands: the keys before it, the record, the keys after it.

use super::{
    Memo, Object, Stop, Text,
    mold::{Fitting, Molds, line_end},
};
use crate::parse::json::{Lexer, Stretch};

/// An envelope in the reading, up to its record.
#[derive(Debug)]
pub(in crate::envelope) struct Reading<'a, 'm> {
    text: &'a str,
    lexer: Lexer<'a>,
    object: Object,
    memo: &'m mut Memo,
}

impl<'a, 'm> Reading<'a, 'm> {
    /// Reads `text` up to its record. `None` where none begins as an escaped object.
    pub(in crate::envelope) fn begin(text: &'a str, memo: &'m mut Memo) -> Option<Self> {
        let mut reading = Self { text, lexer: Lexer::new(text), object: Object::default(), memo };
        reading.lexer.begin().ok()?;
        reading.read(Stop::BeforeRecord)?;
        Some(reading)
    }

    /// Goes on with a text that begins as one before did.
    pub(in crate::envelope) fn resume(text: &'a str, of: Fitting, molds: &Molds, memo: &'m mut Memo) -> Self {
        let lexer = Lexer::within(text, of.record() - 1);
        Self { text, lexer, object: molds.begun(of), memo }
    }

    /// What was found so far.
    pub(in crate::envelope) fn begun(&self) -> Object {
        self.object.clone()
    }

    /// What begins with the record.
    pub(in crate::envelope) fn head(&self) -> Option<&'a str> {
        self.lexer.rest().strip_prefix('"')
    }

    /// Reads what follows a record of `bytes`. `None` where that is not all of the text, or the line goes on.
    pub(in crate::envelope) fn finish(&mut self, bytes: usize) -> Option<&Object> {
        let head = self.head()?;
        let after = head.get(bytes..)?;
        let written = bytes + line_end(after);
        head[written..].strip_prefix('"')?;
        let start = self.text.len() - head.len();
        self.object.record = Some(Text::Escaped(Stretch::new(start, start + written)));
        self.lexer.step_over(written + 2);
        self.read(Stop::Never)?;
        self.lexer.closed_at().ok().filter(|&end| self.text[end..].trim_ascii().is_empty())?;
        (!self.object.is_piece(self.text) && !self.object.holds_otlp).then_some(&self.object)
    }

    fn read(&mut self, stop: Stop) -> Option<()> {
        let mut path = std::mem::take(&mut self.memo.path);
        path.clear();
        let read = self.object.read_top(self.text, &mut self.lexer, &mut path, self.memo, stop);
        self.memo.path = path;
        read.ok()
    }
}
