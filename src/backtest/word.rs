//! What the `detector` column says of a record.

use qualm_ingest::source::Rejection;
use qualm_model::detector::Question;

/// Said of a scored event that no question found odd at all.
const UNREMARKABLE: &str = "none";
/// The words of records that are not scored; the code of each is its place + 1.
const UNSCORED: [&str; 5] = ["invalid", "foreign", "duplicate", "own_action", "part"];
const FIRST_SCORED: u8 = 16;

/// What the `detector` column says of a record.
#[derive(Debug, Clone, Copy)]
pub(super) enum Word {
    /// It was scored; the question with the strongest answer.
    Scored(Option<Question>),
    /// It became no event.
    Rejected(Rejection),
    /// It names no source.
    NoSource,
    /// Another report of the same call counts.
    Duplicate,
    /// A stream goes on, and nothing has come since its last record.
    Part,
    /// It shows an action of Qualm itself.
    OwnAction,
}

impl Word {
    /// The code of nothing said yet.
    pub(super) const NONE: u8 = 0;

    /// One byte for it.
    pub(super) fn code(self) -> u8 {
        let unscored =
            |word: &str| UNSCORED.iter().position(|known| *known == word).map_or(Self::NONE, |place| place as u8 + 1);
        match self {
            Self::Scored(None) => FIRST_SCORED,
            Self::Scored(Some(question)) => FIRST_SCORED + 1 + question as u8,
            Self::Rejected(why) => unscored(why.as_str()),
            Self::NoSource => unscored("invalid"),
            Self::Duplicate => unscored("duplicate"),
            Self::Part => unscored("part"),
            Self::OwnAction => unscored("own_action"),
        }
    }
}

/// The word of a code.
pub(super) fn word(code: u8) -> &'static str {
    match code.checked_sub(FIRST_SCORED) {
        Some(0) => UNREMARKABLE,
        Some(question) => Question::ALL.get(usize::from(question) - 1).map_or(UNREMARKABLE, |question| question.name()),
        None => code.checked_sub(1).and_then(|place| UNSCORED.get(usize::from(place))).copied().unwrap_or("invalid"),
    }
}

/// Whether records of this code have a score.
pub(super) fn is_scored(code: u8) -> bool {
    code >= FIRST_SCORED
}

#[cfg(test)]
mod tests {
    use qualm_ingest::source::Invalid;

    use super::*;

    #[test]
    fn every_word_survives_its_code() {
        for question in Question::ALL {
            let code = Word::Scored(Some(question)).code();
            assert!(is_scored(code));
            assert_eq!(word(code), question.name());
        }
        let unscored = [
            (Word::Rejected(Rejection::Invalid(Invalid::Syntax)), "invalid"),
            (Word::Rejected(Rejection::Foreign), "foreign"),
            (Word::Rejected(Rejection::Duplicate), "duplicate"),
            (Word::Rejected(Rejection::Part), "part"),
            (Word::Duplicate, "duplicate"),
            (Word::Part, "part"),
            (Word::NoSource, "invalid"),
            (Word::OwnAction, "own_action"),
        ];
        for (said, text) in unscored {
            assert!(!is_scored(said.code()) && said.code() != Word::NONE);
            assert_eq!(word(said.code()), text);
        }
        assert_eq!(word(Word::Scored(None).code()), "none");
    }
}
