//! Is it a name or a token? A name is made of words as people write them, with at most a few short numbers.

/// Shorter words are never tokens.
pub(super) const MIN_BYTES: usize = 16;
/// No name is a piece this long without a joint.
const MAX_PIECE: usize = 31;
/// `HTTPSAPI` and the capital of the word after it.
const MAX_ACRONYM: usize = 8;
const MAX_NUMBERS: usize = 2;
/// `Is`, `By`, `HTTP` and `Mgr`: shortest words, acronyms and words without a vowel in one name.
const MAX_ODD_WORDS: usize = 2;
/// Small letters before a number inside a name: `OAuth2`, `Base64`.
const MIN_WORD_BEFORE_NUMBER: usize = 3;
/// `s3`, `k8s`, `x64`: too short to tell.
const SHORT_PIECE: usize = 3;

/// Well-known beginnings of secrets.
const PREFIXES: [&str; 14] = [
    "eyJ",
    "hvs.",
    "hvb.",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xox",
    "AKIA",
    "ASIA",
    "sk_live_",
    "sk-",
    "AIza",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Lower,
    Upper,
    Digit,
    Joint,
}

fn run_of(byte: u8) -> Run {
    match byte {
        b'a'..=b'z' => Run::Lower,
        b'A'..=b'Z' => Run::Upper,
        b'0'..=b'9' => Run::Digit,
        _ => Run::Joint,
    }
}

/// Whether a word of at least [`MIN_BYTES`] begins as well-known tokens do.
pub(super) fn has_token_prefix(word: &str) -> bool {
    word.len() >= MIN_BYTES && PREFIXES.iter().any(|prefix| word.starts_with(prefix))
}

/// Whether a word of at least [`MIN_BYTES`] has letters of both cases or letters and digits, mixed as no name is.
///
/// Any part of a name cut at its joints is a name again, so that folding is idempotent.
pub(super) fn is_token(word: &str) -> bool {
    if word.len() < MIN_BYTES {
        return false;
    }
    word.split(['-', '_', '.', '~']).any(|piece| piece.len() > MAX_PIECE || !is_name(piece.as_bytes()))
}

fn is_name(piece: &[u8]) -> bool {
    if piece.len() <= SHORT_PIECE {
        return true;
    }
    let has_lower = piece.iter().any(u8::is_ascii_lowercase);
    let (mut start, mut numbers, mut odd_words, mut without_lower) = (0, 0, 0, 0);
    let (mut before, mut length_before) = (Run::Joint, 0);
    while start < piece.len() {
        let run = run_of(piece[start]);
        let length = piece[start..].iter().take_while(|&&byte| run_of(byte) == run).count();
        let after = piece.get(start + length).map_or(Run::Joint, |&byte| run_of(byte));
        let fits = match run {
            // One small letter alone: at the front (`eBay`), after its capital (`Is`), before a number (`v2`).
            Run::Lower => length > 1 || start == 0 || before == Run::Upper || is_version(piece[start], after),
            Run::Upper => fits_upper(length, has_lower, start, after),
            Run::Digit => {
                start < 2
                    || !matches!(before, Run::Lower)
                    || length_before >= MIN_WORD_BEFORE_NUMBER
                    || piece[start - 1] == b'v'
            }
            Run::Joint => true,
        };
        numbers += usize::from(run == Run::Digit);
        odd_words += usize::from(run == Run::Lower && length == 1 && before == Run::Upper);
        odd_words += usize::from(run == Run::Upper && length > 1 && has_lower);
        odd_words += usize::from(
            run == Run::Lower
                && length > 1
                && !has_vowel(&piece[start - usize::from(before == Run::Upper)..start + length]),
        );
        // Capitals and digits in one long stretch: base32.
        without_lower = if run == Run::Lower { 0 } else { without_lower + length };
        let base32 = numbers > 0 && without_lower >= MIN_BYTES;
        if !fits || numbers > MAX_NUMBERS || odd_words > MAX_ODD_WORDS || base32 {
            return false;
        }
        (before, length_before) = (run, length);
        start += length;
    }
    true
}

fn has_vowel(word: &[u8]) -> bool {
    word.iter().any(|byte| b"aeiouy".contains(&byte.to_ascii_lowercase()))
}

fn is_version(letter: u8, after: Run) -> bool {
    letter == b'v' && after == Run::Digit
}

/// Capitals begin a word, or are an acronym; one alone otherwise is a version's `V`.
fn fits_upper(length: usize, has_lower: bool, start: usize, after: Run) -> bool {
    if !has_lower {
        return true;
    }
    match length {
        1 => start == 0 || after == Run::Lower || after == Run::Digit,
        _ => length <= MAX_ACRONYM,
    }
}
