//! Two witnesses: of each call the caller's and the called's proxy tell, as a rule. A call that the called's proxy saw
//! and the claimed caller's never told of, while the proxies of that caller tell of everything else, was made with its
//! credential somewhere else; the reverse went past the called's proxy.
//!
//! Where reports are sampled, filtered or lost, the proxies do not tell of everything, and nothing is said.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use foldhash::fast::FixedState;
use qualm_model::{
    detector::Deviation,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

/// Reports of one identity by which its proxies are judged; older ones count half a window less at each.
const WINDOW: Span = Span(10 * Span::MINUTE.0);
/// So many calls that both ends told of are needed, and no more than this share that one did not.
const LEAST: f64 = 50.0;
const LOSSY: f64 = 0.02;
/// A place that has told of nothing is known as such after so many calls and so long: shippers may be late.
const CALLS: f64 = 3.0;
const LATE: Span = Span(2 * Span::MINUTE.0);
/// A place has a proxy that tells if it told of a call within this time.
const TELLS: Span = Span::HOUR;
/// Identities kept, and places of each; the oldest are forgotten first.
const IDENTITIES: usize = 1 << 14;
const PLACES: usize = 64;

/// Calls in this window and the one before: those that both told of, and those that this one did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Counts {
    window: i64,
    now: [f64; 2],
    before: [f64; 2],
}

/// One address of an identity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Place {
    address: Arc<str>,
    counts: Counts,
    /// When it was last told of.
    told: Option<Timestamp>,
    /// Calls since then that were not told of, and when the first of them was found.
    untold: f64,
    since: Timestamp,
    last: Timestamp,
}

/// What is known of the proxies on one side of all identities' calls.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Witnesses {
    by: HashMap<Arc<str>, Vec<Place>, FixedState>,
    order: VecDeque<Arc<str>>,
}

impl Counts {
    fn add(&mut self, which: usize, now: Timestamp) {
        let window = now.window(WINDOW);
        if window > self.window {
            self.before = if window == self.window + 1 { self.now } else { [0.0; 2] };
            (self.window, self.now) = (window, [0.0; 2]);
        }
        self.now[which] += 1.0;
    }

    fn sum(&self, now: Timestamp) -> [f64; 2] {
        match now.window(WINDOW) - self.window {
            ..=0 => [self.now[0] + self.before[0], self.now[1] + self.before[1]],
            1 => self.now,
            _ => [0.0; 2],
        }
    }
}

impl Witnesses {
    fn place(&mut self, who: &str, address: &str, now: Timestamp) -> &mut Place {
        if !self.by.contains_key(who) {
            self.make(who);
        }
        let places = self.by.get_mut(who).expect("it was made where there was none");
        let known = places.iter().position(|place| *place.address == *address);
        let at = known.unwrap_or_else(|| {
            let place = Place {
                address: Arc::from(address),
                counts: Counts::default(),
                told: None,
                untold: 0.0,
                since: now,
                last: now,
            };
            if places.len() < PLACES {
                places.push(place);
                return places.len() - 1;
            }
            let oldest = (0..PLACES).min_by_key(|&at| places[at].last).unwrap_or_default();
            places[oldest] = place;
            oldest
        });
        let place = &mut places[at];
        place.last = place.last.max(now);
        place
    }

    fn make(&mut self, who: &str) {
        let who: Arc<str> = Arc::from(who);
        self.order.push_back(Arc::clone(&who));
        self.by.insert(who, Vec::new());
        if self.order.len() > IDENTITIES
            && let Some(oldest) = self.order.pop_front()
        {
            self.by.remove(&oldest);
        }
    }

    /// Both ends told of a call of `who` at `address`.
    pub(super) fn agree(&mut self, who: &str, address: &str, now: Timestamp) {
        let place = self.place(who, address, now);
        place.counts.add(0, now);
        (place.told, place.untold) = (place.told.max(Some(now)), 0.0);
    }

    /// This one did not tell of a call of `who` at `address`: how odd that is, where its proxies tell of everything else.
    pub(super) fn miss(&mut self, who: &str, address: &str, now: Timestamp) -> Option<Deviation> {
        let place = self.place(who, address, now);
        place.counts.add(1, now);
        if place.untold == 0.0 {
            place.since = now;
        }
        place.untold += 1.0;
        let tells = place.told.is_some_and(|last| now - last <= TELLS);
        if tells || place.untold < CALLS || now - place.since < LATE {
            return None;
        }
        let observed = place.untold;
        let others = self.by.get(who)?.iter();
        let telling = others.filter(|place| place.told.is_some_and(|last| now - last <= TELLS));
        let [told, untold] =
            telling.map(|place| place.counts.sum(now)).fold([0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
        let share = (untold + 1.0) / (told + untold + 2.0);
        if told < LEAST || share > LOSSY {
            return None;
        }
        Some(Deviation { x: 1.0 / share, observed, expected: share * observed, n: told })
    }

    /// Whether the proxies of `who` at `address` have told of a call lately.
    pub(super) fn tells(&self, who: &str, address: &str, now: Timestamp) -> bool {
        let place = self.by.get(who).and_then(|places| places.iter().find(|place| *place.address == *address));
        place.and_then(|place| place.told).is_some_and(|last| now - last <= TELLS)
    }

    /// Bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let places: usize = self.by.values().map(Vec::len).sum();
        places * (size_of::<Place>() + 32) + self.by.len() * 160
    }
}
