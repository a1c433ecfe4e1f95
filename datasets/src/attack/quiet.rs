//! Attacks that keep low: slow, at odd hours, within what is known, or as a trickle to the outside.

use super::plan::Plan;
use crate::{
    calendar::{DAY, HOUR, MINUTE, Millis, SECOND},
    mesh::{Kind, Operation, Protocol, Segment, ServiceId, Size},
    traffic::{Factors, Step, Train},
};

impl Plan<'_> {
    /// Answers eight times as large, one every four minutes, for six hours.
    pub(super) fn slow_exfiltration(&mut self) -> Option<Train> {
        let step = self.known_operation()?;
        let mut train = self.calls(90.0, 4 * MINUTE, vec![step]);
        train.count = 90;
        train.factors = Factors { bytes_out: 8.0 * self.attack.intensity, duration: 1.5, ..Factors::default() };
        Some(train)
    }

    /// One known call, 5 % of the actor's usual rate more every hour, for 36 hours.
    pub(super) fn slow_boil(&mut self) -> Option<Vec<Train>> {
        let step = self.known_operation()?;
        let hourly = (self.usual_rate() * 3_600.0).max(60.0);
        let hours = 36;
        let trains = (1..=hours).map(|hour| {
            let share = libm::pow(1.05, f64::from(hour)) - 1.0;
            let count = (hourly * share * self.attack.intensity).ceil().max(1.0);
            let mut train = self.calls(1.0, SECOND, vec![step]);
            train.start = self.attack.at + (i64::from(hour - 1) * HOUR);
            train.count = count as u32;
            train.gap = ((HOUR as f64 / count) as i64).max(1);
            train
        });
        Some(trains.collect())
    }

    /// What the job does every night or hour, in the middle of what it never works in.
    pub(super) fn off_hours(&mut self) -> Option<Vec<Train>> {
        let known: Vec<_> = self.mesh.peers(self.actor).collect();
        let apis = known.into_iter().filter(|&id| self.mesh.service(id).kind == Kind::Api);
        let steps: Vec<_> = apis.collect::<Vec<_>>().into_iter().flat_map(|id| self.known_operations(id)).collect();
        (!steps.is_empty()).then(|| vec![self.calls(120.0, 5 * SECOND, steps)])
    }

    /// Known operations on known edges, the rarest as often as the most frequent, each three times in a row.
    pub(super) fn unusual_sequence(&mut self) -> Option<Train> {
        let mut peers: Vec<ServiceId> = self.mesh.peers(self.actor).collect();
        peers.retain(|&id| self.mesh.service(id).kind == Kind::Api);
        let known: Vec<Step> = peers.into_iter().flat_map(|id| self.known_operations(id)).collect();
        let shuffled = self.stream.sample(&known, known.len());
        let steps: Vec<_> = shuffled.into_iter().flat_map(|step| [step; 3]).collect();
        if steps.is_empty() {
            return None;
        }
        // At the actor's own rate, at least one call every two seconds: the mix is odd, not the number.
        let gap = (1_000.0 / self.usual_rate().max(0.5)) as i64;
        Some(self.calls(60.0, gap, steps))
    }

    /// Small requests whose names carry the data, one every two minutes, for four hours.
    pub(super) fn tunnelling(&mut self) -> Option<Train> {
        let mut operation = self.outside("GET", "/q/{hex}{hex}{uuid}", "resolver.example")?;
        operation.request = Size { median: 180.0, sigma: 0.1 };
        operation.response = Size { median: 220.0, sigma: 0.1 };
        self.calling_outside(operation, 120.0, 2 * MINUTE, 0.6)
    }

    /// Connections of about 40 minutes that carry some kilobytes each.
    pub(super) fn cryptomining(&mut self) -> Option<Train> {
        let mut operation = self.outside("", "", "pool.example")?;
        operation.protocol = Protocol::Tcp;
        operation.path = Vec::new();
        operation.request = Size { median: 9_000.0, sigma: 0.2 };
        operation.response = Size { median: 30_000.0, sigma: 0.2 };
        operation.duration = Size { median: 40.0 * MINUTE as f64, sigma: 0.1 };
        self.calling_outside(operation, 6.0, 10 * MINUTE, 0.3)
    }

    /// From 01:00 UTC of the next night, every 20 minutes give or take 30 %.
    pub(super) fn night_beacon(&mut self) -> Option<Train> {
        let operation = self.outside("POST", "/t/{hex}", "telemetry.example")?;
        let mut train = self.calling_outside(operation, 18.0, 20 * MINUTE, 0.3)?;
        let one = Millis(self.attack.at.midnight().0 + HOUR);
        let next = if one < self.attack.at { one + DAY } else { one };
        // Not where it would end after the night, or after what is simulated: then at once.
        if next - self.attack.at <= 4 * HOUR {
            train.start = next;
        }
        Some(train)
    }

    /// A host outside that nobody calls.
    pub(super) fn outside(&mut self, method: &'static str, path: &str, domain: &str) -> Option<Operation> {
        let egress = self.mesh.of_kind(Kind::Egress).next()?;
        let mut operation = Operation::http(egress, method, path);
        operation.host = Some(format!("n{:04x}.{domain}", self.stream.bits() & 0xffff));
        debug_assert!(operation.path.iter().all(|segment| *segment != Segment::Word));
        Some(operation)
    }

    fn calling_outside(&mut self, operation: Operation, count: f64, gap: i64, jitter: f64) -> Option<Train> {
        let destination = operation.service;
        let operation = self.mesh.add_operation(operation);
        let train = self.calls(count, gap, vec![Step { destination, operation }]);
        Some(Train { jitter, ..train })
    }
}
