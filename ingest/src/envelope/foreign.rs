//! What is plainly no access log: what applications and proxies say of themselves.
//!
//! Asked only of what a format could not read. Formats whose own records look like this are not asked for them.

use std::{collections::HashMap, sync::LazyLock};

use crate::parse::{
    Format,
    json::{Lexer, Value},
    time::rfc3339,
};

/// Keys that a whole object has in common with some record of a format, to be a broken one of them: all of them where that
/// has fewer. Programs have a key or two of everybody's.
const ALIKE: usize = 4;

/// The keys of the formats' own records.
static SAMPLES: LazyLock<Samples> = LazyLock::new(Samples::read);

/// The words that mark a level in what programs write.
const LEVELS: [&str; 12] =
    ["trace", "debug", "info", "notice", "warn", "warning", "error", "err", "critical", "crit", "fatal", "panic"];

/// Which of the marks are no marks for a format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks {
    in_text: bool,
    in_json: bool,
    format: Format,
}

/// Records of the formats that are JSON objects.
struct Samples {
    /// Of each the format, and how many keys it has.
    records: Vec<(Format, usize)>,
    /// Which of them have a key.
    having: HashMap<&'static str, Vec<usize>>,
}

impl Samples {
    fn read() -> Self {
        let mut samples = Self { records: Vec::new(), having: HashMap::new() };
        for &format in Format::ALL {
            for keys in format.sample().lines().filter_map(keys_of).filter(|keys| !keys.is_empty()) {
                for &key in &keys {
                    samples.having.entry(key).or_default().push(samples.records.len());
                }
                samples.records.push((format, keys.len()));
            }
        }
        samples
    }

    /// Whether an object of these keys may be a record of a format, or of any.
    fn has_like(&self, keys: &[&str], format: Format) -> bool {
        let mut shared = vec![0; self.records.len()];
        for &record in keys.iter().filter_map(|&key| self.having.get(key)).flatten() {
            shared[record] += 1;
        }
        shared
            .into_iter()
            .zip(&self.records)
            .any(|(shared, &(of, keys))| (of == format || format == Format::Auto) && shared >= keys.min(ALIKE))
    }
}

/// The keys of a whole JSON object, each once.
fn keys_of(record: &str) -> Option<Vec<&str>> {
    let mut lexer = Lexer::new(record);
    let mut keys = Vec::new();
    lexer.begin().ok()?;
    while let Some(key) = lexer.key().ok()? {
        keys.push(key);
        lexer.skip_value().ok()?;
    }
    lexer.end().ok()?;
    keys.sort_unstable();
    keys.dedup();
    Some(keys)
}

impl Marks {
    /// The marks that no record of `format` bears by itself: its sample says.
    pub(crate) fn beside(format: Format) -> Self {
        let sample = || format.sample().lines();
        Self {
            in_text: !sample().any(is_diagnostic),
            // What a mapping reads is for its author to say.
            in_json: format != Format::Mapped && !sample().any(is_application),
            format,
        }
    }

    /// Whether a record bears one of them.
    #[cold]
    pub(crate) fn are_on(self, record: &str) -> bool {
        let record = record.trim_ascii();
        self.in_text && is_diagnostic(record) || self.in_json && is_application(record) || self.is_anybodys(record)
    }

    /// Whether a record is a whole object with hardly a key of the format's.
    fn is_anybodys(self, record: &str) -> bool {
        self.format != Format::Mapped && keys_of(record).is_some_and(|keys| !SAMPLES.has_like(&keys, self.format))
    }
}

/// A line of Envoy, of Istio's agent, of klog or logfmt.
fn is_diagnostic(line: &str) -> bool {
    is_envoys(line) || is_agents(line) || is_klog(line) || is_logfmt(line)
}

/// `[2026-11-22 02:02:24.122][12][warning][config] …`
fn is_envoys(line: &str) -> bool {
    let Some((time, rest)) = line.strip_prefix('[').and_then(|rest| rest.split_once("][")) else { return false };
    let is_time = time.len() >= 19 && time.as_bytes()[10] == b' ' && time.as_bytes()[0].is_ascii_digit();
    let mut parts = rest.splitn(3, ['[', ']']);
    let is_thread = parts.next().is_some_and(|thread| thread.bytes().all(|c| c.is_ascii_digit()) && !thread.is_empty());
    is_time && is_thread
}

/// `2026-11-22T02:02:24.122Z  info  …`, parted by blanks or tabs.
fn is_agents(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    words.next().is_some_and(|time| rfc3339(time).is_ok()) && words.next().is_some_and(is_level)
}

/// `I1122 02:02:24.122 1 file.go:12] …`
fn is_klog(line: &str) -> bool {
    let Some((head, _)) = line.split_once("] ") else { return false };
    let mut words = head.split_ascii_whitespace();
    let is_day = |day: &str| {
        day.len() == 5 && day.starts_with(['I', 'W', 'E', 'F']) && day[1..].bytes().all(|c| c.is_ascii_digit())
    };
    words.next().is_some_and(is_day) && head.contains(':')
}

/// `time="…" level=info msg="…"`
fn is_logfmt(line: &str) -> bool {
    let has = |key: &str| line.starts_with(key) || line.contains(&format!(" {key}"));
    !line.starts_with(['{', '[']) && has("level=") && has("msg=")
}

fn is_level(word: &str) -> bool {
    let word = word.trim_matches(['[', ']', ':']);
    LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level))
}

/// A whole JSON object with a level and a message.
fn is_application(record: &str) -> bool {
    if !record.starts_with('{') {
        return false;
    }
    let mut lexer = Lexer::new(record);
    let (mut has_level, mut has_message) = (false, false);
    let mut read = || {
        lexer.begin()?;
        while let Some(key) = lexer.key()? {
            match (key, lexer.value()?) {
                ("level" | "severity" | "lvl" | "levelname" | "log.level", Value::Text(_) | Value::Number(_)) => {
                    has_level = true;
                }
                ("msg" | "message" | "event", Value::Text(_) | Value::Escaped(_)) => has_message = true,
                (_, Value::Object | Value::Array) => lexer.skip_rest()?,
                _ => {}
            }
        }
        Ok::<_, crate::source::Invalid>(())
    };
    read().is_ok() && lexer.end().is_ok() && has_level && has_message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_say_of_themselves_is_foreign() {
        let marks = Marks::beside(Format::IstioText);
        for line in [
            "[2026-11-22 02:02:24.122][12][warning][config] [source/common/x.cc:12] gRPC config stream closed: 14",
            "2026-11-22T02:02:24.122842Z\tinfo\tFLAG: --concurrency=\"0\"",
            "2026-11-22T02:02:24.122842Z  warn  ca  ca request failed, starting attempt 1 in 93.02ms",
            "I1122 02:02:24.122842       1 controller.go:12] Starting",
            "time=\"2026-11-22T02:02:24Z\" level=info msg=\"started\"",
            r#"{"level":"info","ts":1.5,"msg":"GET /x","method":"GET","path":"/x"}"#,
        ] {
            assert!(marks.are_on(line), "{line}");
        }
    }

    #[test]
    fn access_logs_are_not_foreign_whole_or_cut() {
        for &format in Format::ALL {
            let marks = Marks::beside(format);
            for record in format.sample().lines() {
                for end in (0..=record.len()).filter(|&end| record.is_char_boundary(end)) {
                    assert!(!marks.are_on(&record[..end]), "{format}: {}", &record[..end]);
                }
            }
        }
        let marks = Marks::beside(Format::IstioJson);
        assert!(!marks.are_on(r#"{"level":"info","msg":"cut of"#));
    }

    #[test]
    fn objects_with_hardly_a_key_of_the_formats_are_foreign_and_broken_records_are_not() {
        for format in [Format::Auto, Format::IstioJson, Format::KubernetesAudit] {
            let marks = Marks::beside(format);
            for line in [
                r#"{"event":"order_placed","user":"u1","order":42}"#,
                r#"{"method":"GET","path":"/x","status":200,"duration":"12ms"}"#,
                r#"{"time":{"a":1},"error":[],"status":7}"#,
                "{}",
            ] {
                assert!(marks.are_on(line), "{format}: {line}");
            }
        }
        for &format in Format::ALL.iter().filter(|format| format.is_named()) {
            for record in format.sample().lines().filter(|record| record.starts_with('{')) {
                // Every value of another type.
                let keys = keys_of(record).expect("it is whole").into_iter().map(|key| format!("\"{key}\":[true]"));
                let broken = format!("{{{}}}", keys.collect::<Vec<_>>().join(","));
                assert!(!Marks::beside(format).are_on(&broken), "{format}: {broken}");
                assert!(!Marks::beside(Format::Auto).are_on(&broken), "{format}: {broken}");
            }
        }
    }
}
