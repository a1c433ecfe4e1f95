//! SQL as the name of what was asked: the command and the first object, and nothing of what was in it.
//!
//! `SELECT card FROM shop.orders WHERE id = 42` becomes `SELECT shop.orders`. Literals, comments and parameters are never
//! read; a command that is none is `{command}`.

use qualm_model::fold;

/// Statements are read so far; what follows is most often a long list of values.
const MAX_BYTES: usize = 4096;
const MAX_NAME_BYTES: usize = 128;

const COMMANDS: [&str; 40] = [
    "ABORT",
    "ALTER",
    "ANALYZE",
    "BEGIN",
    "CALL",
    "CHECKPOINT",
    "CLOSE",
    "CLUSTER",
    "COMMENT",
    "COMMIT",
    "COPY",
    "CREATE",
    "DEALLOCATE",
    "DECLARE",
    "DELETE",
    "DISCARD",
    "DO",
    "DROP",
    "END",
    "EXECUTE",
    "EXPLAIN",
    "FETCH",
    "GRANT",
    "INSERT",
    "LISTEN",
    "LOCK",
    "MERGE",
    "NOTIFY",
    "PREPARE",
    "REINDEX",
    "RESET",
    "REVOKE",
    "ROLLBACK",
    "SELECT",
    "SET",
    "SHOW",
    "TRUNCATE",
    "UPDATE",
    "VACUUM",
    "WITH",
];
/// What an object's name follows.
const BEFORE_NAME: [&str; 9] = ["FROM", "INTO", "UPDATE", "TABLE", "VIEW", "ON", "CALL", "COPY", "LOCK"];
/// What may stand between, and is no name.
const BETWEEN: [&str; 7] = ["ONLY", "IF", "NOT", "EXISTS", "LATERAL", "TABLE", "CONCURRENTLY"];

/// Appends command and object of a statement.
pub(super) fn append(sql: &str, out: &mut String) {
    let sql = &sql[..sql.floor_char_boundary(MAX_BYTES)];
    let mut tokens = Tokens { rest: sql }.peekable();
    let Some(Token::Word(first)) = tokens.peek().copied() else { return out.push_str("{command}") };
    match COMMANDS.iter().find(|known| known.eq_ignore_ascii_case(first)) {
        Some(command) => out.push_str(command),
        None => return out.push_str("{command}"),
    }
    let is_one_of = |word: &str, list: &[&str]| list.iter().any(|known| known.eq_ignore_ascii_case(word));
    while let Some(token) = tokens.next() {
        if !matches!(token, Token::Word(word) if is_one_of(word, &BEFORE_NAME)) {
            continue;
        }
        while matches!(tokens.peek(), Some(Token::Word(word)) if is_one_of(word, &BETWEEN)) {
            tokens.next();
        }
        let mut name = String::new();
        while let Some(Token::Word(part) | Token::Quoted(part)) = tokens.peek().copied() {
            name.push_str(part);
            tokens.next();
            if tokens.next_if_eq(&Token::Symbol('.')).is_none() {
                break;
            }
            name.push('.');
        }
        if !name.is_empty() {
            out.push(' ');
            return fold::append_path(&name[..name.floor_char_boundary(MAX_NAME_BYTES)], out);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    /// An identifier in double quotes.
    Quoted(&'a str),
    Symbol(char),
}

/// The words and symbols of a statement; literals and comments are stepped over.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let text = self.rest.trim_start();
            let c = text.chars().next()?;
            let after = &text[c.len_utf8()..];
            self.rest = if text.starts_with("--") {
                after_match(after, "\n")
            } else if text.starts_with("/*") {
                after_match(after, "*/")
            } else if c == '\'' {
                after_match(after, "'")
            } else if c == '$' {
                after_dollar(text)
            } else if c == '"' {
                let end = after.find('"')?;
                self.rest = &after[end + 1..];
                return Some(Token::Quoted(&after[..end]));
            } else if c.is_alphabetic() || c == '_' {
                let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
                let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
                // `E'…'`, `B'…'`: the prefix of a literal.
                if end == 1 && text[end..].starts_with('\'') {
                    self.rest = after_match(&text[end + 1..], "'");
                    continue;
                }
                self.rest = &text[end..];
                return Some(Token::Word(&text[..end]));
            } else if c.is_ascii_digit() {
                text.trim_start_matches(|c: char| c.is_alphanumeric() || c == '.' || c == '_')
            } else {
                self.rest = after;
                return Some(Token::Symbol(c));
            };
        }
    }
}

fn after_match<'a>(text: &'a str, end: &str) -> &'a str {
    text.find(end).map_or("", |at| &text[at + end.len()..])
}

/// After `$1`, or after `$tag$ … $tag$`.
fn after_dollar(text: &str) -> &str {
    let tag = text[1..].find(|c: char| !c.is_alphanumeric() && c != '_').map_or(text.len(), |at| at + 1);
    if !text[tag..].starts_with('$') {
        return &text[tag..];
    }
    after_match(&text[tag + 1..], &text[..=tag])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(sql: &str) -> String {
        let mut out = String::new();
        append(sql, &mut out);
        out
    }

    #[test]
    fn a_statement_is_its_command_and_its_first_object() {
        for (sql, name) in [
            ("SELECT card FROM shop.orders WHERE id = 42", "SELECT shop.orders"),
            ("select count(*) from \"shop\".\"orders\" where x = 'from secrets'", "SELECT shop.orders"),
            ("SELECT 'x FROM secrets' , $$ FROM y $$, E'\\t FROM z' FROM a", "SELECT a"),
            ("SELECT * FROM (SELECT 1 FROM inner_table) t", "SELECT inner_table"),
            ("INSERT INTO accounts(email) VALUES ('bob@example.org')", "INSERT accounts"),
            ("update only public.users set password='hunter2'", "UPDATE public.users"),
            ("DROP TABLE IF EXISTS orders_2026_11_22", "DROP orders_{id}_11_22"),
            ("-- FROM x\n/* FROM y */ DELETE FROM carts", "DELETE carts"),
            ("ALTER USER bob PASSWORD 'hunter2'", "ALTER"),
            ("COPY users (id) FROM stdin", "COPY users"),
            ("hunter2 is my secret", "{command}"),
            ("BEGIN", "BEGIN"),
            ("", "{command}"),
        ] {
            assert_eq!(named(sql), name, "{sql}");
        }
    }

    proptest! {
        #[test]
        fn literals_are_never_told(secret in "[a-z]{6,12}", sql in "[ a-z,=()]{0,20}") {
            let named = named(&format!("SELECT '{secret}' {sql}"));
            prop_assert!(!named.contains(&secret) || sql.contains(&secret), "{}", named);
        }

        #[test]
        fn arbitrary_text_never_panics(sql in "\\PC{0,200}", tail in "[$a'\"/*.-]{0,30}") {
            let _ = (named(&sql), named(&format!("SELECT {tail}{sql}")));
        }
    }
}
