//! Pictures in SVG, drawn without a script.

use maud::{Markup, html};
use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};

use crate::backtest::{
    chronicle::{Peak, Step},
    trust::rfc3339,
};

/// Width of all pictures, in their own units.
const WIDTH: f64 = 960.0;
/// Room for words to the left.
const LEFT: f64 = 220.0;
const BARS_HEIGHT: f64 = 90.0;
const CURVE_HEIGHT: f64 = 160.0;
const ROW_HEIGHT: f64 = 22.0;
/// Bars side by side; more days than that share bars.
const MOST_BARS: usize = 120;
/// Points of a curve; more hours than that share points.
const MOST_POINTS: usize = 600;

/// The stretch of time that a picture is about.
#[derive(Debug, Clone, Copy)]
pub(in crate::backtest) struct Window {
    pub(in crate::backtest) from: Timestamp,
    pub(in crate::backtest) until: Timestamp,
}

impl Window {
    /// Where a time lies between `left` and the right edge.
    fn x(self, at: Timestamp, left: f64) -> f64 {
        let whole = (self.until - self.from).as_seconds().max(1.0);
        let share = ((at - self.from).as_seconds() / whole).clamp(0.0, 1.0);
        left + share * (WIDTH - left)
    }
}

/// The class by which a level has its colour.
fn class(level: Level) -> &'static str {
    level.as_str()
}

/// Entries by day as bars, and the budget as a line.
pub(super) fn bars(level: Level, by_day: &[u64], budget: f64) -> Markup {
    let shared = by_day.len().div_ceil(MOST_BARS).max(1);
    let bars: Vec<f64> =
        by_day.chunks(shared).map(|days| days.iter().sum::<u64>() as f64 / days.len() as f64).collect();
    let most = bars.iter().copied().fold(budget, f64::max).max(1.0);
    let width = (WIDTH - LEFT) / bars.len().max(1) as f64;
    let y = |value: f64| BARS_HEIGHT - 12.0 - value / most * (BARS_HEIGHT - 24.0);
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {BARS_HEIGHT}")) role="img"
            aria-label=(format!("entries into {} by day", level.as_str())) {
            text x="0" y="30" class="name" { (level.as_str()) }
            text x="0" y="50" class="small" { "budget " (number(budget)) " a day, most " (number(most)) }
            @for (place, value) in bars.iter().enumerate() {
                rect class=(class(level)) x=(round(LEFT + place as f64 * width + 0.1 * width)) y=(round(y(*value)))
                    width=(round(width * 0.8)) height=(round(BARS_HEIGHT - 12.0 - y(*value))) {
                    title { (number(*value)) " a day, from day " (place * shared + 1) }
                }
            }
            line class="budget" x1=(LEFT) x2=(WIDTH) y1=(round(y(budget))) y2=(round(y(budget))) {}
            line class="ground" x1=(LEFT) x2=(WIDTH) y1=(BARS_HEIGHT - 12.0) y2=(BARS_HEIGHT - 12.0) {}
        }
    }
}

/// The mesh's highest evidence over time.
pub(super) fn curve(hours: &[(i64, &Peak)], window: Window) -> Markup {
    let most = hours.iter().map(|(_, peak)| peak.bits).fold(1.0, f64::max);
    let y = |bits: f64| CURVE_HEIGHT - 20.0 - bits.max(0.0) / most * (CURVE_HEIGHT - 30.0);
    let shared = hours.len().div_ceil(MOST_POINTS).max(1);
    let highest =
        |of: &[(i64, &Peak)]| of.iter().max_by(|a, b| a.1.bits.total_cmp(&b.1.bits)).map(|&(at, peak)| (at, peak.bits));
    let points: Vec<String> = hours
        .chunks(shared)
        .filter_map(highest)
        .map(|(hour, bits)| format!("{},{}", round(window.x(Timestamp(hour * Span::HOUR.0), LEFT)), round(y(bits))))
        .collect();
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {CURVE_HEIGHT}")) role="img" aria-label="highest evidence by hour" {
            text x="0" y="30" class="name" { "evidence" }
            text x="0" y="50" class="small" { "highest of each hour, up to " (number(most)) " bits" }
            line class="ground" x1=(LEFT) x2=(WIDTH) y1=(CURVE_HEIGHT - 20.0) y2=(CURVE_HEIGHT - 20.0) {}
            polyline class="curve" points=(points.join(" ")) {}
            (times(window, LEFT, CURVE_HEIGHT - 5.0))
        }
    }
}

/// Who stood where, and when: a row an identity.
pub(super) fn stretches(rows: &[(&str, Vec<&Step>)], window: Window) -> Markup {
    let height = ROW_HEIGHT * (rows.len() as f64 + 1.0);
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label="who stood at which level, and when" {
            @for (row, (identity, steps)) in rows.iter().enumerate() {
                @let y = row as f64 * ROW_HEIGHT;
                text x="0" y=(round(y + 15.0)) class="small" { (short(identity)) title { (identity) } }
                line class="ground" x1=(LEFT) x2=(WIDTH) y1=(round(y + ROW_HEIGHT - 2.0)) y2=(round(y + ROW_HEIGHT - 2.0)) {}
                @for step in steps {
                    @let from = window.x(step.from, LEFT);
                    @let until = window.x(step.until.unwrap_or(window.until), LEFT);
                    rect class=(class(step.level)) x=(round(from)) y=(round(y + 3.0))
                        width=(round((until - from).max(2.0))) height=(ROW_HEIGHT - 8.0) {
                        title { (identity) ": " (step.level.as_str()) " from " (rfc3339(step.from)) ", " (number(step.evidence_bits)) " bits" }
                    }
                }
            }
            (times(window, LEFT, height - 6.0))
        }
    }
}

/// Begin and end of a picture's time.
fn times(window: Window, left: f64, y: f64) -> Markup {
    html! {
        text x=(left) y=(y) class="small" { (rfc3339(window.from)) }
        text x=(WIDTH) y=(y) class="small end" { (rfc3339(window.until)) }
    }
}

/// The end of a long name, which tells most.
fn short(name: &str) -> String {
    const MOST: usize = 30;
    let length = name.chars().count();
    if length <= MOST {
        name.to_owned()
    } else {
        format!("…{}", name.chars().skip(length - MOST + 1).collect::<String>())
    }
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// A number with no more digits than anybody wants.
pub(super) fn number(value: f64) -> String {
    match value {
        value if !value.is_finite() => "–".to_owned(),
        value if value.abs() >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        value if value.abs() >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}
