//! Envoy's access log service.

use std::sync::Arc;

use envoy_types::pb::envoy::{
    data::accesslog::v3::{HttpAccessLogEntry, TcpAccessLogEntry},
    service::accesslog::v3::{
        StreamAccessLogsMessage, StreamAccessLogsResponse, access_log_service_server::AccessLogService,
        stream_access_logs_message::LogEntries,
    },
};
use prost::Message as _;
use qualm_model::identity::Peer;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Message, Origin, Queue, Sink,
    entry::{Scratch, of_http, of_tcp},
};

/// A node id longer than this is cut.
const NODE_ID_BYTES: usize = 256;

/// The service. The listener puts the verified [`Peer`] into the extensions of each request.
#[derive(Debug)]
pub struct AccessLogs {
    queue: Queue,
}

/// The entries of one message.
#[derive(Debug)]
pub(super) enum Entries {
    Http(Vec<HttpAccessLogEntry>),
    Tcp(Vec<TcpAccessLogEntry>),
}

impl AccessLogs {
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue }
    }
}

#[tonic::async_trait]
impl AccessLogService for AccessLogs {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let reporter = self.queue.capacity(request.extensions().get::<Peer>())?;
        let _place = self.queue.place()?;
        let mut origin = Arc::new(Origin { reporter: reporter.clone(), node_id: String::new() });
        let mut messages = request.into_inner();
        while let Some(message) = messages.message().await? {
            // Only the first message names the proxy, in some 70 KB of which the id is all that is kept.
            if let Some(node) = message.identifier.and_then(|identifier| identifier.node) {
                let mut node_id = node.id;
                node_id.truncate(node_id.floor_char_boundary(NODE_ID_BYTES));
                origin = Arc::new(Origin { reporter: reporter.clone(), node_id });
            }
            let (entries, bytes) = match message.log_entries {
                Some(LogEntries::HttpLogs(logs)) => {
                    let bytes = logs.encoded_len();
                    (Entries::Http(logs.log_entry), bytes)
                }
                Some(LogEntries::TcpLogs(logs)) => {
                    let bytes = logs.encoded_len();
                    (Entries::Tcp(logs.log_entry), bytes)
                }
                None => continue,
            };
            self.queue.send(Message::Als(entries), bytes, &origin).await?;
        }
        Ok(Response::new(StreamAccessLogsResponse::default()))
    }
}

impl Entries {
    pub(super) fn read(&self, scratch: &mut Scratch, sink: &mut Sink<'_>) {
        match self {
            Self::Http(entries) => {
                for entry in entries {
                    sink.take("als_http", entry.encoded_len(), of_http(entry, scratch));
                }
            }
            Self::Tcp(entries) => {
                for entry in entries {
                    sink.take("als_tcp", entry.encoded_len(), of_tcp(entry, scratch));
                }
            }
        }
    }
}
