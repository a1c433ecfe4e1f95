//! Accepting connections to the page: a bounded number at a time, each for a bounded time.

use std::{
    future::Future as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

/// How long a connection may ask; a scraper then connects anew. Not a multiple of usual scrape intervals.
const ASKING: Duration = Duration::from_secs(50);
/// How long it may take after that to read the last answer.
const ANSWERING: Duration = Duration::from_secs(10);
/// Pause after the system would not accept a connection, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listener.
#[derive(Debug)]
pub(crate) struct Door {
    socket: TcpListener,
    places: Arc<Semaphore>,
    asking: Duration,
}

/// A connection with an end: nobody holds a place by sending or reading slowly.
#[derive(Debug)]
pub(crate) struct Visit {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    may_ask: bool,
    _place: OwnedSemaphorePermit,
}

impl Door {
    pub(super) fn new(socket: TcpListener, connections: usize) -> Self {
        let places = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        Self { socket, places, asking: ASKING }
    }

    #[cfg(test)]
    pub(super) fn closing_after(self, asking: Duration) -> Self {
        Self { asking, ..self }
    }
}

impl Listener for Door {
    type Io = Visit;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visit, SocketAddr) {
        let place = self.places.clone().acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match self.socket.accept().await {
                Ok((stream, address)) => {
                    let end = Box::pin(sleep(self.asking));
                    return (Visit { stream, end, may_ask: true, _place: place }, address);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the observability page");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl Visit {
    /// Moves on when the time is over: first no more questions, then no more answers.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.end.as_mut().poll(cx));
        if !self.may_ask {
            return Poll::Ready(io::ErrorKind::TimedOut.into());
        }
        self.may_ask = false;
        self.end.as_mut().reset(Instant::now() + ANSWERING);
        self.end.as_mut().poll(cx).map(|()| io::ErrorKind::TimedOut.into())
    }
}

impl AsyncRead for Visit {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let visit = self.get_mut();
        if let Poll::Ready(error) = visit.poll_end(cx) {
            return Poll::Ready(Err(error));
        }
        if !visit.may_ask {
            // As if the other side had closed: the connection ends after the answer under way.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut visit.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Visit {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let visit = self.get_mut();
        if let Poll::Ready(error) = visit.poll_end(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut visit.stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
