//! One call, as it happened; what proxies write about it is the business of [`crate::istio`].

use crate::{
    calendar::Millis,
    mesh::{InstanceId, OperationId},
};

/// One request or connection between two instances of a [`Mesh`](crate::Mesh).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// When it began.
    pub start: Millis,
    /// How long it took, in milliseconds.
    pub duration: u32,
    /// Status as HTTP has it, also for gRPC and TCP, whose own status follows from it.
    pub status: u16,
    /// Unique within the traffic; ports and the ids inside the path are derived from it.
    pub id: u64,
    /// The request it is part of: its own id, or that of the user's request at the gateway. The request id is derived
    /// from it.
    pub request: u64,
    /// The caller.
    pub source: InstanceId,
    /// The called.
    pub destination: InstanceId,
    /// What was asked.
    pub operation: OperationId,
    /// Bytes from caller to called.
    pub bytes_in: u64,
    /// Bytes from called to caller.
    pub bytes_out: u64,
    /// Why it was made. Never written to a log.
    pub cause: Cause,
}

/// Why a call was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Everyday traffic.
    Routine,
    /// Part of the attack of this index in [`Scenario::attacks`](crate::Scenario::attacks).
    Attack(u32),
    /// Part of the honest change of this index in [`Scenario::changes`](crate::Scenario::changes).
    Change(u32),
}

impl Call {
    /// When it could first be known: proxies log a call when it ends.
    pub fn report(&self) -> Millis {
        self.start + i64::from(self.duration)
    }

    /// Whether an attacker made it.
    pub fn is_attack(&self) -> bool {
        matches!(self.cause, Cause::Attack(_))
    }
}

/// What gRPC makes of an HTTP status: the code a gRPC server answers with where an HTTP one says `status`.
pub(crate) const fn grpc_status(status: u16) -> u8 {
    match status {
        200..=299 => 0,
        401 => 16,
        403 => 7,
        404 => 5,
        429 => 8,
        400..=499 => 3,
        504 => 4,
        503 => 14,
        _ => 13,
    }
}
