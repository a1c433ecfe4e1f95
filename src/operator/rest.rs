//! The operator's interface as JSON over HTTP, beside gRPC on the same port and from the same definition.
//!
//! `POST /v1/<call>` takes the request message as JSON and answers with the response message as JSON (protobuf's own
//! mapping, with the names of the `.proto`); calls that change nothing may also be made as `GET /v1/<call>?field=value`;
//! `GET /v1` lists all of them. What a call means, who may make it and how often, and what is journalled is decided once,
//! by the service that gRPC calls too: here a request is only put into other words. A call that is added to the `.proto`
//! is served here without a line of code.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Path, RawQuery, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::Response,
    routing::get,
};
use http_body_util::BodyExt as _;
use percent_encoding::percent_decode_str;
use prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MessageDescriptor, MethodDescriptor, SerializeOptions, prost::Message as _,
};
use protox::{
    Compiler,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver},
};
use qualm_model::identity::Peer;
use qualm_proto::{DEFINITIONS, operator::v1::operator_server::OperatorServer};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tower::ServiceExt as _;

use super::{Desk, desk::LARGEST_REQUEST};

/// The definition of the service.
const FILE: &str = "qualm/operator/v1/operator.proto";
const SERVICE: &str = "qualm.operator.v1.Operator";
/// Bytes of an answer: the longest that the service gives, with room to spare.
const LARGEST_ANSWER: usize = 8 << 20;
/// A call that has this field in its request changes something.
const KEY: &str = "idempotency_key";

/// The interface, ready to be served.
#[derive(Clone)]
pub(crate) struct Rest {
    service: OperatorServer<Desk>,
    /// By their name in a path.
    calls: Arc<BTreeMap<String, MethodDescriptor>>,
}

/// The definitions that this binary was built from.
#[derive(Debug)]
struct Definitions;

impl FileResolver for Definitions {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match DEFINITIONS.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

impl Rest {
    /// An interface to this service.
    ///
    /// # Errors
    /// When the definition in this binary does not compile: never, or the tests would have said so.
    pub(crate) fn new(service: OperatorServer<Desk>) -> anyhow::Result<Self> {
        let mut resolver = ChainFileResolver::new();
        resolver.add(Definitions);
        resolver.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(resolver);
        compiler.include_imports(true).open_file(FILE).context("the operator's definition")?;
        let pool = DescriptorPool::from_file_descriptor_set(compiler.file_descriptor_set())?;
        let service_of = pool.get_service_by_name(SERVICE).context("the operator's definition has no service")?;
        let unary = service_of.methods().filter(|call| !call.is_client_streaming() && !call.is_server_streaming());
        let calls = unary.map(|call| (path_name(call.name()), call)).collect();
        Ok(Self { service, calls: Arc::new(calls) })
    }

    /// Its routes, for the port.
    pub(crate) fn routes(self) -> Router {
        Router::new().route("/v1", get(list)).route("/v1/{call}", get(call).post(call)).with_state(self)
    }

    /// Calls the service as gRPC does, and takes its answer apart.
    async fn forward(
        &self,
        call: &MethodDescriptor,
        message: &DynamicMessage,
        peer: Option<Peer>,
    ) -> Result<Value, Status> {
        let encoded = message.encode_to_vec();
        let mut framed = vec![0];
        framed.extend(u32::try_from(encoded.len()).unwrap_or(u32::MAX).to_be_bytes());
        framed.extend(encoded);
        let internal = |error: String| Status::internal(format!("the answer cannot be put into JSON: {error}"));
        let mut request = axum::http::Request::post(format!("/{SERVICE}/{}", call.name()))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(tonic::body::Body::new(Body::from(framed)))
            .map_err(|error| internal(error.to_string()))?;
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        let Ok(answer) = self.service.clone().oneshot(request).await;
        let (parts, body) = answer.into_parts();
        refused(&parts.headers)?;
        let collected = http_body_util::Limited::new(body, LARGEST_ANSWER).collect().await;
        let collected = collected.map_err(|error| internal(error.to_string()))?;
        refused(collected.trailers().unwrap_or(&HeaderMap::new()))?;
        let bytes = collected.to_bytes();
        let payload = bytes.get(5..).ok_or_else(|| internal("there is none".to_owned()))?;
        let answer = DynamicMessage::decode(call.output(), payload).map_err(|error| internal(error.to_string()))?;
        let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);
        answer
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|error| internal(error.to_string()))
    }
}

/// What gRPC says in headers or trailers, where it is a refusal.
fn refused(headers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => Ok(()),
    }
}

async fn call(
    State(rest): State<Rest>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let Some(call) = rest.calls.get(&name) else {
        return told(&Status::not_found(format!("there is no call of this name; one of {}", names(&rest).join(", "))));
    };
    let (parts, body) = request.into_parts();
    let message = match parts.method {
        Method::GET => from_query(call, query.as_deref().unwrap_or_default()),
        _ => from_body(call, &parts.headers, body).await,
    };
    let message = match message {
        Ok(message) => message,
        Err(status) => return told(&status),
    };
    match rest.forward(call, &message, parts.extensions.get::<Peer>().cloned()).await {
        Ok(answer) => answered(StatusCode::OK, &answer),
        Err(status) => told(&status),
    }
}

/// What there is to call, with the fields of each request.
async fn list(State(rest): State<Rest>) -> Response {
    let fields = |message: MessageDescriptor| -> BTreeMap<String, String> {
        message.fields().map(|field| (field.name().to_owned(), kind_of(&field.kind(), field.is_list()))).collect()
    };
    let calls = rest.calls.iter().map(|(name, call)| {
        let methods = if changes(call) { vec!["POST"] } else { vec!["GET", "POST"] };
        json!({ "path": format!("/v1/{name}"), "methods": methods, "fields": fields(call.input()) })
    });
    answered(StatusCode::OK, &json!({ "definition": FILE, "calls": calls.collect::<Vec<_>>() }))
}

fn kind_of(kind: &Kind, is_list: bool) -> String {
    let one = match kind {
        Kind::Enum(of) => of.values().map(|value| value.name().to_owned()).collect::<Vec<_>>().join(" | "),
        Kind::Message(of) if of.full_name() == "google.protobuf.Duration" => "duration, as \"3600s\"".to_owned(),
        Kind::Message(of) if of.full_name() == "google.protobuf.Timestamp" => "time, RFC 3339".to_owned(),
        Kind::Message(of) => of.name().to_owned(),
        kind => format!("{kind:?}").to_lowercase(),
    };
    if is_list { format!("list of {one}") } else { one }
}

fn names(rest: &Rest) -> Vec<&str> {
    rest.calls.keys().map(String::as_str).collect()
}

fn changes(call: &MethodDescriptor) -> bool {
    call.input().get_field_by_name(KEY).is_some()
}

/// A request whose fields are in the query. Not for what changes something: links are followed by machines, too.
fn from_query(call: &MethodDescriptor, query: &str) -> Result<DynamicMessage, Status> {
    if changes(call) {
        return Err(Status::unimplemented("it changes something: send it as POST, with JSON"));
    }
    let mut fields = serde_json::Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, text) = (unescaped(name)?, unescaped(text)?);
        let field = call.input().get_field_by_name(&name);
        let value = match field.as_ref().map(prost_reflect::FieldDescriptor::kind) {
            Some(Kind::Bool) => text.parse().map_or(Value::String(text), Value::Bool),
            _ => Value::String(text),
        };
        match fields.get_mut(&name) {
            Some(Value::Array(values)) => values.push(value),
            Some(_) => return Err(Status::invalid_argument(format!("`{name}` is given twice"))),
            None if field.is_some_and(|field| field.is_list()) => {
                fields.insert(name, Value::Array(vec![value]));
            }
            None => {
                fields.insert(name, value);
            }
        }
    }
    message(call, &Value::Object(fields))
}

fn unescaped(text: &str) -> Result<String, Status> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Into::into).map_err(|_| Status::invalid_argument("the query is no UTF-8"))
}

async fn from_body(call: &MethodDescriptor, headers: &HeaderMap, body: Body) -> Result<DynamicMessage, Status> {
    // A page in a browser that holds a certificate cannot send this type to us without asking first.
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Status::invalid_argument("send JSON, with `Content-Type: application/json`"));
    }
    let bytes: Bytes = to_bytes(body, LARGEST_REQUEST).await.map_err(|_| {
        Status::invalid_argument(format!("the request cannot be read, or has more than {LARGEST_REQUEST} bytes"))
    })?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Status::invalid_argument(format!("the request is no JSON: {error}")))?;
    message(call, &value)
}

fn message(call: &MethodDescriptor, value: &Value) -> Result<DynamicMessage, Status> {
    DynamicMessage::deserialize(call.input(), value).map_err(|error| {
        Status::invalid_argument(format!("{}: {error}; GET /v1 tells its fields", call.input().name()))
    })
}

/// A refusal in HTTP's words.
fn told(status: &Status) -> Response {
    let http = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::METHOD_NOT_ALLOWED,
        Code::Unavailable | Code::DeadlineExceeded => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let code = format!("{:?}", status.code());
    answered(http, &json!({ "error": { "code": code, "message": status.message() } }))
}

fn answered(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `ListApprovals` is `list-approvals` in a path.
fn path_name(name: &str) -> String {
    let mut path = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !path.is_empty() {
            path.push('-');
        }
        path.extend(letter.to_lowercase());
    }
    path
}
