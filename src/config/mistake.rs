//! How a mistake in the text of a configuration is told.

/// Line and column, the key, what is wrong, and the nearest known key or what to write.
pub(super) fn describe(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().to_owned();
    let place = error.to_string().lines().next().unwrap_or_default().replace("TOML parse error ", "");
    let remedy =
        nearest(&message).map_or_else(|| remedy(&message).to_owned(), |key| format!("; did you mean `{key}`?"));
    let key = error.span().and_then(|span| key_at(text, span.start)).filter(|_| !message.starts_with("unknown"));
    let key = key.map_or_else(String::new, |key| format!("`{key}`: "));
    format!("{place}: {key}{message}{remedy}")
}

/// What to write where a value is of another type, or stands twice.
fn remedy(message: &str) -> &'static str {
    let expects = |words: &[&str]| words.iter().any(|word| message.ends_with(&format!("expected {word}")));
    if message.starts_with("duplicate key") {
        return "; it stands here for the second time, keep one of the two";
    }
    if message.contains("invalid socket address syntax") {
        return "; write host:port, for example 127.0.0.1:9464 (the host as an IP address, not by name)";
    }
    if expects(&["usize", "u16", "u32", "u64"]) {
        return "; write a whole number without unit and quotes, as 1024";
    }
    if expects(&["f64"]) { "; write a number without unit and quotes, as 0.5" } else { "" }
}

/// The key, or the section, of the line in which a place lies.
fn key_at(text: &str, place: usize) -> Option<&str> {
    let begin = text.get(..place)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text.get(begin..)?.lines().next()?.trim();
    if line.starts_with('[') {
        return Some(line);
    }
    let (key, _) = line.split_once('=')?;
    Some(key.trim())
}

/// From `unknown field `budgett`, expected one of `a`, `b``: the expected word that the unknown one
/// begins, else the one that a few typing errors make of it, one in three letters at most.
fn nearest(message: &str) -> Option<String> {
    if !message.starts_with("unknown") {
        return None;
    }
    let mut words = message.split('`').skip(1).step_by(2);
    let wrong = words.next()?;
    let known: Vec<&str> = words.collect();
    if let Some(begun) = known.iter().find(|word| wrong.len() > 1 && word.starts_with(wrong)) {
        return Some((*begun).to_owned());
    }
    let bearable = wrong.chars().count() / 3;
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(wrong, word), word))
        .min()
        .filter(|(distance, _)| *distance <= bearable)
        .map(|(_, word)| word.to_owned())
}
