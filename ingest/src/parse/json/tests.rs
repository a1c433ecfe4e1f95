use proptest::prelude::*;

use super::*;

/// Every value of a line, keys joined by dots, as a check against serde_json.
fn flatten(text: &str) -> Lexed<Vec<(String, String)>> {
    fn object(lexer: &mut Lexer<'_>, text: &str, prefix: &str, out: &mut Vec<(String, String)>) -> Lexed<()> {
        while let Some(key) = lexer.key()? {
            let name = format!("{prefix}{key}");
            match lexer.value()? {
                Value::Object => object(lexer, text, &format!("{name}."), out)?,
                Value::Array => lexer.skip_rest()?,
                Value::Null => out.push((name, "null".into())),
                Value::Bool(value) => out.push((name, value.to_string())),
                Value::Number(number) | Value::Text(number) => out.push((name, number.of(text).into())),
                Value::Escaped(escaped) => {
                    let mut value = String::new();
                    unescape(escaped.of(text), &mut value)?;
                    out.push((name, value));
                }
            }
        }
        Ok(())
    }
    let mut lexer = Lexer::new(text);
    lexer.begin()?;
    let mut out = Vec::new();
    object(&mut lexer, text, "", &mut out)?;
    lexer.end()?;
    Ok(out)
}

#[test]
fn values_of_every_kind_are_read() {
    let text = r#" { "a" : 1 , "b":"x\u00e9\ud83d\ude00\n","c":{"d":null,"e":[1,{"f":"}"}]},"g":true,"h":-1.5e3} "#;
    let expected = [("a", "1"), ("b", "xé😀\n"), ("c.d", "null"), ("g", "true"), ("h", "-1.5e3")];
    let flat = flatten(text).expect("well-formed");
    assert_eq!(flat.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
}

#[test]
fn ill_formed_lines_are_refused() {
    for text in [
        "",
        "{",
        "[]",
        r#"{"a":1"#,
        r#"{"a":1,}"#,
        r#"{"a" 1}"#,
        r#"{"a":1 "b":2}"#,
        r#"{,"a":1}"#,
        r#"{"a":tru}"#,
        r#"{"a":1}x"#,
        r#"{"a":[1}]}"#,
        "{\"a\":\"\u{1}\"}",
        r#"{"a":"x\"#,
        r#"{"a":"\q"}"#,
        r#"{"a":"\u12"}"#,
    ] {
        assert_eq!(flatten(text), Err(Invalid::Syntax), "{text}");
    }
}

#[test]
fn an_array_is_read_value_by_value() {
    let values = |text: &str| {
        let mut lexer = Lexer::new(text);
        assert_eq!(lexer.value()?, Value::Array);
        let mut count = 0;
        while lexer.element()? {
            lexer.skip_value()?;
            count += 1;
        }
        lexer.end().map(|()| count)
    };
    for (text, count) in [("[]", 0), (" [ 1 , {\"a\":[2]} ,\"]\"] ", 3), ("[[],[]]", 2)] {
        assert_eq!(values(text), Ok(count), "{text}");
    }
    for text in ["[", "[1", "[1,]", "[,1]", "[1 2]", "[1]]"] {
        assert_eq!(values(text), Err(Invalid::Syntax), "{text}");
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    assert!(flatten(&nested(MAX_DEPTH as usize)).is_ok());
    assert_eq!(flatten(&nested(MAX_DEPTH as usize + 1)), Err(Invalid::Syntax));
    assert_eq!(flatten(&format!("{{\"a\":{}", "[".repeat(60_000))), Err(Invalid::Syntax));
}

proptest! {
    #[test]
    fn strings_are_read_as_serde_json_reads_them(text in "\\PC{0,40}[\"\\\\\n\t]?\\PC{0,20}", key in "[a-z]{1,9}_") {
        let line = serde_json::json!({ &key: &text, "end": 1 }).to_string();
        let flat = flatten(&line).expect("serde_json writes well-formed JSON");
        prop_assert!(flat.contains(&(key, text)), "{:?}", flat);
    }

    #[test]
    fn arbitrary_text_never_panics(text in "[\\[\\]{}\":,\\\\a-c0-9é \u{0}-\u{1f}]{0,60}") {
        let _ = flatten(&text);
    }
}
