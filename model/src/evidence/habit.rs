//! Habit: a recurring short episode is forgiven, a continuing one never.

use serde::{Deserialize, Serialize};

use crate::time::{Span, Timestamp};

/// Bits above which an hour belongs to an episode.
const NOTABLE: f32 = 3.0;
/// An episode longer than this did not end by itself and is no habit.
const LONGEST: usize = 6;
/// A habit that was not kept for four days is none: without this limit two floods at the same hour seven and eight
/// days later were hidden in the prototype.
const KEPT_HOURS: i64 = 96;

/// Slots of the hours of a day.
const HOURS: usize = 24;
/// Behind them, slots of the last days: today, and a week.
const DAYS: usize = 8;
/// As high as on so many days of the week before is usual, whatever the hour: who logs in on most days does not do so by
/// the clock. Twice may be one cause.
const USUAL_DAYS: usize = 3;

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Slot {
    bits: f32,
    hour: i32,
}

/// What a source did at which hour of the day, as far as it was notable and ended by itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Habit {
    slots: Vec<Slot>,
    hour: i64,
    hour_bits: f32,
    run: Vec<f32>,
    run_is_long: bool,
}

impl Habit {
    /// `bits` as they count at `now`: where this hour or a neighbouring one was as high within the last four days,
    /// `min(bits, 2 + max(0, bits − slot − 1))`.
    #[inline]
    pub fn forgive(&self, now: Timestamp, bits: f64) -> f64 {
        Self::less(bits, self.kept(now, bits))
    }

    /// How high this hour or a neighbouring one was within the last four days, or any on three days of the last week, where
    /// that bears on `bits`; otherwise 0.
    #[inline]
    pub fn kept(&self, now: Timestamp, bits: f64) -> f64 {
        if self.slots.is_empty() || bits <= f64::from(NOTABLE) {
            return 0.0;
        }
        let hour = now.window(Span::HOUR);
        [-1, 0, 1]
            .into_iter()
            .map(|offset| self.slots[(hour + offset).rem_euclid(HOURS as i64) as usize])
            .filter(|slot| {
                slot.bits > 0.0
                    && hour - i64::from(slot.hour) <= KEPT_HOURS
                    && hour - i64::from(slot.hour) > LONGEST as i64
            })
            .map(|slot| f64::from(slot.bits))
            .fold(self.usual(hour), f64::max)
    }

    /// The height that three days of the last week have reached, each in an episode that ended by itself.
    fn usual(&self, hour: i64) -> f64 {
        let today = hour.div_euclid(HOURS as i64);
        let mut heights: [f32; DAYS] = [0.0; DAYS];
        for (height, slot) in heights.iter_mut().zip(self.slots.get(HOURS..).unwrap_or_default()) {
            let day = i64::from(slot.hour).div_euclid(HOURS as i64);
            if (today - (DAYS as i64 - 1)..today).contains(&day) {
                *height = slot.bits;
            }
        }
        heights.sort_by(|a, b| b.total_cmp(a));
        f64::from(heights[USUAL_DAYS - 1])
    }

    /// `bits` less a habit that was as high as `kept`; 0 is none.
    #[inline]
    pub fn less(bits: f64, kept: f64) -> f64 {
        if kept == 0.0 { bits } else { bits.min(2.0 + (bits - kept - 1.0).max(0.0)) }
    }

    /// Takes in the bits of an event, before forgiveness.
    #[inline]
    pub fn learn(&mut self, now: Timestamp, bits: f64) {
        let hour = now.window(Span::HOUR);
        if hour > self.hour {
            self.close_hours(hour);
        }
        self.hour_bits = self.hour_bits.max(bits as f32);
    }

    /// The running episode was judged an attack: it is no habit, however soon it ends.
    pub fn spoil(&mut self) {
        self.run_is_long = true;
    }

    fn close_hours(&mut self, hour: i64) {
        if self.hour_bits > NOTABLE {
            if self.run.len() < LONGEST {
                self.run.push(self.hour_bits);
            } else {
                self.run_is_long = true;
            }
        }
        // The run has ended where the last hour was calm or hours without any call lie between.
        if (self.hour_bits <= NOTABLE || hour > self.hour + 1) && !self.run.is_empty() {
            let last = if self.hour_bits > NOTABLE { self.hour } else { self.hour - 1 };
            self.write_run(last);
        }
        self.hour = hour;
        self.hour_bits = 0.0;
    }

    fn write_run(&mut self, last: i64) {
        let run = std::mem::take(&mut self.run);
        if std::mem::take(&mut self.run_is_long) {
            return;
        }
        self.slots.resize(HOURS + DAYS, Slot::default());
        let day = last.div_euclid(HOURS as i64);
        let of_day = &mut self.slots[HOURS + day.rem_euclid(DAYS as i64) as usize];
        let is_same = i64::from(of_day.hour).div_euclid(HOURS as i64) == day;
        let highest = run.iter().copied().fold(if is_same { of_day.bits } else { 0.0 }, f32::max);
        *of_day = Slot { bits: highest, hour: last as i32 };
        for (back, &bits) in run.iter().rev().enumerate() {
            let hour = last - back as i64;
            self.slots[hour.rem_euclid(HOURS as i64) as usize] = Slot { bits, hour: hour as i32 };
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.run.capacity() * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(n: i64) -> Timestamp {
        Timestamp(n * Span::HOUR.0)
    }

    /// A source with 10 bits at the hours given and calm calls at all others, up to `end`.
    fn lived(end: i64, loud: impl Fn(i64) -> bool) -> Habit {
        let mut habit = Habit::default();
        (0..end).for_each(|n| habit.learn(hour(n), if loud(n) { 10.0 } else { 0.0 }));
        habit
    }

    #[test]
    fn a_nightly_job_is_forgiven_the_second_time() {
        let habit = lived(27, |n| n == 3);
        assert_eq!(habit.forgive(hour(27), 10.0), 2.0);
        assert_eq!(habit.forgive(hour(27), 15.0), 6.0, "but only as far as it was as high");
        assert_eq!(habit.forgive(hour(30), 10.0), 10.0, "and only at its hour");
    }

    #[test]
    fn what_goes_on_is_never_a_habit() {
        let habit = lived(60, |n| n >= 3);
        assert_eq!(habit.forgive(hour(60), 10.0), 10.0);
    }

    #[test]
    fn a_habit_is_lost_after_four_days() {
        let habit = lived(3 + 97, |n| n == 3);
        assert_eq!(habit.forgive(hour(3 + 120), 10.0), 10.0);
    }

    #[test]
    fn what_is_done_on_three_days_of_a_week_is_usual_at_any_hour_and_twice_is_not() {
        let days = |of: &'static [i64]| lived(5 * 24, move |n| of.contains(&n));
        assert_eq!(days(&[9, 24 + 16, 48 + 12]).forgive(hour(5 * 24 + 21), 10.0), 2.0);
        assert_eq!(
            days(&[9, 24 + 16, 48 + 12]).forgive(hour(5 * 24 + 21), 14.0),
            5.0,
            "but only as far as it was as high"
        );
        assert_eq!(days(&[9, 48 + 12, 48 + 18]).forgive(hour(5 * 24 + 23), 10.0), 10.0, "two days");
        let last_week = lived(11 * 24, |n| [9, 24 + 16, 48 + 12].contains(&n));
        assert_eq!(last_week.forgive(hour(11 * 24 + 21), 10.0), 10.0);
    }

    #[test]
    fn what_was_acted_on_is_no_habit() {
        let mut habit = Habit::default();
        (0..27).for_each(|n| {
            habit.learn(hour(n), if n == 3 { 10.0 } else { 0.0 });
            if n == 3 {
                habit.spoil();
            }
        });
        assert_eq!(habit.forgive(hour(27), 10.0), 10.0);
    }

    #[test]
    fn an_episode_does_not_forgive_itself() {
        let habit = lived(5, |n| n == 3);
        assert_eq!(habit.forgive(hour(5), 10.0), 10.0);
    }
}
