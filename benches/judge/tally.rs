//! All meshes together.

use std::collections::BTreeMap;

use qualm_model::level::Level;

use crate::mesh::Evaluated;

/// Honest identities a day above which an attack is asked to stand.
const A_DAY: [f64; 6] = [0.5, 1.0, 2.0, 3.0, 5.0, 10.0];

/// Sums over meshes.
#[derive(Default)]
pub(crate) struct Tally {
    meshes: usize,
    days: f64,
    attacks: usize,
    reached: [usize; 4],
    named: usize,
    passing: [usize; A_DAY.len()],
    wrongful: [usize; 4],
    delays: Vec<f64>,
    /// Attacks of a kind, and how many of them were watched, throttled, named.
    kinds: BTreeMap<String, [usize; 4]>,
    /// Wrongful entries by what they followed: watched, throttled or more.
    amid: BTreeMap<String, [usize; 2]>,
}

impl Tally {
    pub(crate) fn meshes(&self) -> usize {
        self.meshes
    }

    pub(crate) fn add(&mut self, of: &Evaluated) {
        self.meshes += 1;
        self.days += of.ran.days();
        self.attacks += of.attacks.len();
        for level in 0..4 {
            self.reached[level] += of.reaching(level);
            self.wrongful[level] += of.wrongful(level);
        }
        for (sum, a_day) in self.passing.iter_mut().zip(A_DAY) {
            *sum += of.passing(a_day);
        }
        for attack in &of.attacks {
            let named = usize::from(attack.is_named());
            self.named += named;
            self.delays.extend(attack.delay());
            let reached = |level: usize| usize::from(attack.entered[level].is_some());
            let kind = self.kinds.entry(attack.label.kind.clone()).or_default();
            for (sum, one) in kind.iter_mut().zip([1, reached(0), reached(1), named]) {
                *sum += one;
            }
        }
        for entry in &of.wrongful {
            let amid = self.amid.entry(entry.amid.clone()).or_default();
            amid[0] += 1;
            amid[1] += usize::from(entry.level >= Level::Throttled);
        }
    }

    pub(crate) fn text(&self) -> String {
        let share = |of: usize, all: usize| 100.0 * of as f64 / all.max(1) as f64;
        let mut delays = self.delays.clone();
        delays.sort_by(f64::total_cmp);
        let mut text = format!(
            "ALL {} meshes, {:.0} days, {} attacks: watched {:.1} %, throttled {:.1} %, restricted {:.1} %, named {:.1} % of \
             found, median delay {:.0} s; wrongful a day: watched {:.2}, throttled {:.2}; restricted {}, quarantined {}\n",
            self.meshes,
            self.days,
            self.attacks,
            share(self.reached[0], self.attacks),
            share(self.reached[1], self.attacks),
            share(self.reached[2], self.attacks),
            share(self.named, self.reached[0]),
            delays.get(delays.len() / 2).copied().unwrap_or(f64::NAN),
            self.wrongful[0] as f64 / self.days,
            self.wrongful[1] as f64 / self.days,
            self.wrongful[2],
            self.wrongful[3],
        );
        text += "passing";
        for (passing, a_day) in self.passing.iter().zip(A_DAY) {
            text += &format!(" at {a_day} a day {:.1} %,", share(*passing, self.attacks));
        }
        text += "\nkind: attacks, watched, throttled, named\n";
        for (kind, [all, watched, throttled, named]) in &self.kinds {
            text += &format!("  {kind}: {all}, {watched}, {throttled}, {named}\n");
        }
        text += "wrongful amid: watched, throttled\n";
        let mut amid: Vec<_> = self.amid.iter().collect();
        amid.sort_by_key(|(_, [watched, throttled])| std::cmp::Reverse((*throttled, *watched)));
        for (amid, [watched, throttled]) in amid.into_iter().take(25) {
            text += &format!("  {amid}: {watched}, {throttled}\n");
        }
        text
    }
}
