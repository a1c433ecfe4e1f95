//! Who is called with a certificate by everybody: a call without one is against all custom.
//!
//! Only the called's own proxy, or its node's, can tell that no certificate was shown. Probes are known not to have one.

use qualm_model::{
    detector::{Deviation, Question},
    event::{Event, Filter},
    identity::{Class, Provenance},
    time::Span,
};
use serde::{Deserialize, Serialize};

use super::{Broken, Ground, Weight, hashed, kept::Kept};

/// Destinations remembered.
const DESTINATIONS: usize = 1 << 14;
/// Calls are counted by windows of so long: one client without a certificate is one, however often it calls.
const WINDOW: Span = Span(10 * Span::MINUTE.0);
/// Calls, windows and share of windows without any call in plain text that make a custom.
const CALLS: u32 = 100;
const WINDOWS: u32 = 6;
const SHARE: u32 = 100;
/// Where more than this part of all calls of a window show no certificate, it is the logs that have changed.
const OF_ALL: u32 = 20;
/// The e-value of a call without one: 10 bits. It is set by policy; who calls is not verified, so it leads to *watched*.
const E: f64 = 1024.0;

/// All destinations.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Wards {
    by: Kept<Ward, DESTINATIONS>,
    /// Calls with and without a certificate in the open window and the one before, to whomever.
    window: i64,
    now: [u32; 2],
    before: [u32; 2],
}

/// One destination.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Ward {
    calls: u32,
    window: i64,
    /// Calls with and without a certificate in the open window.
    open: [u32; 2],
    /// Windows with a call with a certificate, and with one without.
    windows: [u32; 2],
}

impl Ward {
    fn turn(&mut self, window: i64) {
        if window <= self.window {
            return;
        }
        for (windows, calls) in self.windows.iter_mut().zip(std::mem::take(&mut self.open)) {
            *windows = windows.saturating_add(u32::from(calls > 0));
        }
        self.window = window;
    }

    fn is_always_certified(&self) -> bool {
        let [certified, plain] = self.windows;
        self.calls >= CALLS && certified >= WINDOWS && plain.saturating_mul(SHARE) <= certified.saturating_sub(1)
    }
}

impl Wards {
    /// Takes in a call, and tells whether it lacks the certificate that all others have shown.
    #[inline]
    pub(super) fn look(&mut self, event: Event<'_>, ground: &Ground) -> Option<Broken> {
        let source = event.source();
        let is_witness = event.reporter().is_of_destination() && ground.filter == Filter::None;
        let is_plain = match source.provenance() {
            Provenance::Certificate => false,
            Provenance::AddressMap | Provenance::Name => true,
            Provenance::Joined | Provenance::Declared => return None,
        };
        if !is_witness || is_plain && !Class::of(source.principal()).carries_trust() {
            return None;
        }
        let window = event.report().window(WINDOW);
        self.turn(window);
        let which = usize::from(is_plain);
        self.now[which] = self.now[which].saturating_add(1);
        let ward = self.by.at(hashed(event.destination().principal()), event.report());
        ward.turn(window);
        ward.open[which] = ward.open[which].saturating_add(1);
        if !is_plain {
            ward.calls = ward.calls.saturating_add(1);
            return None;
        }
        let all = [self.now[0].saturating_add(self.before[0]), self.now[1].saturating_add(self.before[1])];
        let logs_have_changed = all[1].saturating_mul(OF_ALL) > all[0];
        let n = f64::from(ward.calls);
        let deviation = Deviation { x: E, observed: f64::from(ward.open[1]), expected: 0.0, n };
        (ward.is_always_certified() && !logs_have_changed).then_some(Broken {
            question: Question::NoCertificate,
            deviation,
            weight: Weight::Firm,
        })
    }

    fn turn(&mut self, window: i64) {
        if window > self.window {
            self.before = if window == self.window + 1 { self.now } else { [0; 2] };
            (self.window, self.now) = (window, [0; 2]);
        }
    }

    /// Bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        self.by.bytes()
    }
}
