//! Attacks on what services hold: objects, databases, queues.

use super::plan::Plan;
use crate::{
    calendar::{MINUTE, SECOND},
    mesh::{Kind, Operation, Protocol, Size, odd_operations},
    traffic::{Answer, Factors, Step, Train},
};

impl Plan<'_> {
    pub(super) fn refused_burst(&mut self) -> Option<Train> {
        let destination = self.known_api()?;
        let steps: Vec<_> = odd_operations(destination)
            .into_iter()
            .map(|operation| Step { destination, operation: self.mesh.add_operation(operation) })
            .collect();
        Some(Train { answer: Answer::Mostly(403, 0.0), ..self.calls(60.0, SECOND, steps) })
    }

    pub(super) fn data_pull(&mut self) -> Option<Train> {
        let stores = self.mesh.strangers(self.actor, Kind::Database);
        let destination = *self.stream.pick(&stores)?;
        let operation = *self.mesh.service(destination).operations.first()?;
        let mut train = self.calls(12.0, 10 * SECOND, vec![Step { destination, operation }]);
        train.factors = Factors { bytes_out: 500.0 * self.attack.intensity, duration: 5.0, ..Factors::default() };
        Some(train)
    }

    pub(super) fn destruction(&mut self) -> Option<Train> {
        let destination = self.known_api()?;
        let name = self.mesh.service(destination).name.clone();
        let operation = self.mesh.add_operation(Operation::http(destination, "DELETE", &format!("/v1/{name}/{{n}}")));
        Some(self.calls(40.0, SECOND, vec![Step { destination, operation }]))
    }

    /// Known operation, object after object; one in three is not there.
    pub(super) fn object_enumeration(&mut self) -> Option<Train> {
        let destination = self.known_api()?;
        let known = self.known_operations(destination);
        let with_id = known.iter().find(|step| {
            let operation = self.mesh.operation(step.operation);
            operation.protocol == Protocol::Http && operation.method == "GET" && operation.names_an_id()
        });
        let step = *with_id.or(known.first())?;
        let train = self.calls(900.0, 200, vec![step]);
        Some(Train { answer: Answer::Mostly(404, 0.65), ..train })
    }

    /// Reads and overwrites object after object with contents of equal size.
    pub(super) fn encryption_burst(&mut self) -> Option<Train> {
        let destination = self.known_api()?;
        let name = self.mesh.service(destination).name.clone();
        let size = Size { median: 64_000.0, sigma: 0.1 };
        let mut read = Operation::http(destination, "GET", &format!("/v1/{name}/{{n}}/content"));
        read.response = size;
        let mut write = Operation::http(destination, "PUT", &format!("/v1/{name}/{{n}}/content"));
        write.request = size;
        let steps = [read, write].map(|operation| Step { destination, operation: self.mesh.add_operation(operation) });
        Some(self.calls(600.0, 250, steps.to_vec()))
    }

    /// Connections to a broker the actor never used, reading all that comes.
    pub(super) fn foreign_queue(&mut self) -> Option<Train> {
        let strangers = self.mesh.strangers(self.actor, Kind::Broker);
        let strange = self.stream.pick(&strangers).copied();
        // Where it knows every broker, the topic is new and only the volume shows it.
        let brokers: Vec<_> = self.mesh.of_kind(Kind::Broker).collect();
        let destination = strange.or_else(|| self.stream.pick(&brokers).copied())?;
        let operation = *self.mesh.service(destination).operations.first()?;
        let mut train = self.calls(8.0, MINUTE, vec![Step { destination, operation }]);
        train.factors = Factors { bytes_out: 60.0 * self.attack.intensity, duration: 30.0, ..Factors::default() };
        Some(train)
    }
}
