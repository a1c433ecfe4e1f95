//! What the terminal shows: plain lines, with a little colour and a progress bar where there is a terminal.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};
use qualm_datasets::Millis;
use qualm_model::level::Level;

/// Standard output.
pub(super) struct Screen {
    colour: bool,
    bar: Option<ProgressBar>,
    quarter: u64,
}

impl Screen {
    pub(super) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let bar = terminal.then(|| ProgressBar::new(0));
        Self { colour, bar, quarter: 0 }
    }

    /// Writes a line.
    pub(super) fn line(&self, text: &str) {
        let write = || {
            // Whoever closed the pipe does not want to read on; the demo goes on to its exit code.
            let _ = writeln!(io::stdout().lock(), "{text}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// The name of a level, green to red.
    pub(super) fn level(&self, level: Level) -> String {
        let code = match level {
            Level::Trusted => "32",
            Level::Watched => "36",
            Level::Throttled | Level::Restricted => "33",
            Level::Quarantined | Level::Revoked => "31",
        };
        self.paint(code, level.as_str())
    }

    /// A heading.
    pub(super) fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    /// Something that matters less.
    pub(super) fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// How far history is read: a bar on a terminal, a line each quarter elsewhere.
    pub(super) fn progress(&mut self, share: f64, events: u64, at: Millis) {
        let day = at.to_string();
        let day = day.get(..16).unwrap_or_default().replace('T', " ");
        match &self.bar {
            Some(bar) => {
                if bar.length() != Some(1_000) {
                    bar.set_length(1_000);
                    if let Ok(style) = ProgressStyle::with_template("  {bar:30} {msg}") {
                        bar.set_style(style);
                    }
                }
                bar.set_position((share * 1_000.0) as u64);
                bar.set_message(format!("{day}  {} events", grouped(events)));
            }
            None => {
                let quarter = (share * 4.0) as u64;
                if quarter > self.quarter {
                    self.quarter = quarter;
                    self.line(&format!("  {:>3} %  {day}  {} events", quarter * 25, grouped(events)));
                }
            }
        }
    }

    /// History is read.
    pub(super) fn progressed(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// A count with its thousands apart.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
