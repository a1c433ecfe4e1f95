//! Envoy asking about every request (`envoy.service.auth.v3.Authorization/Check`): an option beside the filters that are
//! pushed. The answer is what those would do before the same node, from the same table and within the same scope; besides,
//! the workload is told the caller's level in a header, and the log the decision in metadata.
//!
//! What it costs is a round trip a request. A proxy that gets no answer in time is to let the request pass
//! (`failure_mode_allow`): `qualm wire envoy` prints it so.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{Address, HeaderValue, HeaderValueOption, address, header_value_option::HeaderAppendAction},
        service::auth::v3::{
            AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
            authorization_server::Authorization, check_response::HttpResponse,
        },
        r#type::v3::HttpStatus,
    },
    google::{
        protobuf::{Struct, Value, value::Kind},
        rpc,
    },
};
use qualm_model::identity::{Peer, SpiffeId};
use tokio::{sync::watch, time::Instant};
use tonic::{Code, Request, Response, Status};

use super::{
    metrics::EnforcementMetrics,
    xds::{
        policy::{Answer, Call, Limit, View},
        snapshot::Snapshot,
    },
};

/// The header by which a workload is told the level of whoever calls it; whatever the caller has put there is replaced.
pub const LEVEL_HEADER: &str = "x-qualm-trust-level";
/// Views and buckets that are remembered; beyond, all are begun anew.
const REMEMBERED: usize = 16_384;
/// What is said of a call too many.
const TOO_MANY: i32 = 429;
const FORBIDDEN: i32 = 403;
const MINUTE: f64 = 60.0;
/// A bucket that nobody has taken from for so long holds about what it can.
const FULL_AGAIN: Duration = Duration::from_secs(600);

/// The service. The listener puts the verified [`Peer`] into the extensions of each request; without one nobody is
/// answered.
#[derive(Debug)]
pub struct ExtAuthz {
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    metrics: EnforcementMetrics,
    views: Mutex<Views>,
    buckets: Mutex<HashMap<(String, Option<SpiffeId>), Bucket>>,
}

/// How nodes see the table of one revision.
#[derive(Debug, Default)]
struct Views {
    revision: String,
    of: HashMap<Option<SpiffeId>, View>,
}

/// What is left of a minute's calls of one decision before the proxies of one identity.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Allowed,
    Denied,
    Limited,
}

impl ExtAuthz {
    pub(super) fn new(snapshots: watch::Receiver<Option<Arc<Snapshot>>>, metrics: EnforcementMetrics) -> Self {
        Self { snapshots, metrics, views: Mutex::default(), buckets: Mutex::default() }
    }

    /// What the table says of a call before a node, and what becomes of it at `now`.
    fn judge(&self, node: Option<&SpiffeId>, call: &Call<'_>, now: Instant) -> (Answer, Outcome) {
        let Some(snapshot) = self.snapshots.borrow().clone() else { return (Answer::default(), Outcome::Allowed) };
        let view = self.view(&snapshot, node);
        let answer = snapshot.policies().answer(&view, call);
        let outcome = match (&answer.denied, &answer.limited) {
            (Some(_), _) => Outcome::Denied,
            (None, Some(limit)) if !self.is_left((limit.policy.clone(), node.cloned()), limit, now) => Outcome::Limited,
            _ => Outcome::Allowed,
        };
        (answer, outcome)
    }

    fn view(&self, snapshot: &Snapshot, node: Option<&SpiffeId>) -> View {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if views.revision != snapshot.revision || views.of.len() >= REMEMBERED {
            *views = Views { revision: snapshot.revision.clone(), of: HashMap::new() };
        }
        let view = views.of.entry(node.cloned()).or_insert_with(|| snapshot.policies().view(node));
        view.clone()
    }

    /// Takes one of the calls that pass at once, which come back evenly by the minute; whether there was one.
    fn is_left(&self, of: (String, Option<SpiffeId>), limit: &Limit, now: Instant) -> bool {
        let (most, a_minute) = (f64::from(limit.at_once), f64::from(limit.a_minute));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= REMEMBERED {
            // One that is full again is as good as none.
            buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at) < FULL_AGAIN);
        }
        if buckets.len() >= REMEMBERED {
            buckets.clear();
        }
        let bucket = buckets.entry(of).or_insert(Bucket { left: most, at: now });
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        let left = (bucket.left + since * a_minute / MINUTE).min(most);
        let is_left = left >= 1.0;
        *bucket = Bucket { left: if is_left { left - 1.0 } else { left }, at: now };
        is_left
    }
}

#[tonic::async_trait]
impl Authorization for ExtAuthz {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let node = match request.extensions().get::<Peer>() {
            Some(Peer::Verified(id)) => Some(id.clone()),
            Some(Peer::Loopback) => None,
            None => return Err(Status::unauthenticated("no verified peer; connect through Qualm's mTLS listener")),
        };
        let of = request.into_inner().attributes.unwrap_or_default();
        let (answer, outcome) = self.judge(node.as_ref(), &call_of(&of), Instant::now());
        self.metrics.checks.with_label_values(&[outcome.as_str()]).inc();
        Ok(Response::new(response(&answer, outcome)))
    }
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Limited => "limited",
        }
    }
}

fn call_of(of: &AttributeContext) -> Call<'_> {
    let http = of.request.as_ref().and_then(|request| request.http.as_ref());
    Call {
        principal: of.source.as_ref().map_or("", |source| &source.principal),
        address: of.source.as_ref().and_then(|source| address_of(source.address.as_ref()?)),
        method: http.map_or("", |http| &http.method),
        path: http.map_or("", |http| &http.path),
    }
}

fn address_of(address: &Address) -> Option<IpAddr> {
    match address.address.as_ref()? {
        address::Address::SocketAddress(socket) => socket.address.parse().ok(),
        _ => None,
    }
}

fn response(answer: &Answer, outcome: Outcome) -> CheckResponse {
    let (code, http_response) = match outcome {
        Outcome::Allowed => {
            let headers = vec![header(LEVEL_HEADER, answer.level.as_str())];
            (Code::Ok, HttpResponse::OkResponse(OkHttpResponse { headers, ..OkHttpResponse::default() }))
        }
        // Nobody is told why, or by which decision: that is in the log.
        Outcome::Denied => (Code::PermissionDenied, refusal(FORBIDDEN, "RBAC: access denied")),
        Outcome::Limited => (Code::ResourceExhausted, refusal(TOO_MANY, "local_rate_limited")),
    };
    CheckResponse {
        status: Some(rpc::Status { code: code as i32, ..rpc::Status::default() }),
        dynamic_metadata: Some(metadata(answer, outcome)),
        http_response: Some(http_response),
    }
}

fn refusal(status: i32, body: &str) -> HttpResponse {
    HttpResponse::DeniedResponse(DeniedHttpResponse {
        status: Some(HttpStatus { code: status }),
        body: body.to_owned(),
        ..DeniedHttpResponse::default()
    })
}

fn header(key: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: key.to_owned(), value: value.to_owned(), ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}

/// What the log is told: the level and its decision; of a refusal also the words of the RBAC filter, by which our own
/// refusals are known again wherever they are read.
fn metadata(answer: &Answer, outcome: Outcome) -> Struct {
    let mut fields = vec![("level", answer.level.as_str().to_owned())];
    fields.extend((!answer.decision.is_empty()).then(|| ("decision", answer.decision.clone())));
    fields.extend((!answer.noted.is_empty()).then(|| ("noted", answer.noted.clone())));
    let policy = match outcome {
        Outcome::Allowed => None,
        Outcome::Denied => answer.denied.clone(),
        Outcome::Limited => answer.limited.as_ref().map(|limit| limit.policy.clone()),
    };
    if let Some(policy) = policy {
        fields.push(("enforced_engine_result", "denied".to_owned()));
        fields.push(("enforced_effective_policy_id", policy));
    }
    let text = |(key, text): (&str, String)| (key.to_owned(), Value { kind: Some(Kind::StringValue(text)) });
    Struct { fields: fields.into_iter().map(text).collect() }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    #[test]
    fn calls_beyond_those_of_a_minute_are_refused_and_come_back_evenly() {
        let metrics = EnforcementMetrics::register(&Registry::new()).expect("a fresh registry");
        let service = ExtAuthz::new(watch::channel(None).1, metrics);
        let limit = |policy: &str| Limit { policy: policy.to_owned(), a_minute: 12, at_once: 12 };
        let (start, of) = (Instant::now(), || ("qualm-throttle/d1".to_owned(), None));
        let passed = |at: u64, calls: usize| {
            (0..calls)
                .filter(|_| service.is_left(of(), &limit("qualm-throttle/d1"), start + Duration::from_secs(at)))
                .count()
        };
        assert_eq!((passed(0, 30), passed(4, 1), passed(5, 5), passed(3600, 30)), (12, 0, 1, 12));
        let other = limit("qualm-throttle/d2");
        assert!(service.is_left((other.policy.clone(), None), &other, start), "another decision has its own");
    }

    #[test]
    fn a_request_of_whom_nobody_has_decided_anything_passes_with_its_level_in_a_header_that_is_replaced() {
        let CheckResponse { http_response, dynamic_metadata, status } = response(&Answer::default(), Outcome::Allowed);
        let Some(HttpResponse::OkResponse(ok)) = http_response else { panic!("it passes") };
        let header = ok.headers[0].header.clone().expect("a header");
        assert_eq!((header.key.as_str(), header.value.as_str()), (LEVEL_HEADER, "trusted"));
        assert_eq!(ok.headers[0].append_action(), HeaderAppendAction::OverwriteIfExistsOrAdd);
        assert_eq!(dynamic_metadata.expect("metadata").fields.len(), 1);
        assert_eq!(status.expect("a status").code, 0);
    }
}
