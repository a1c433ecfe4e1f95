//! The workload behind a sidecar: a TCP server that sends back what it receives, and an HTTP server that serves all.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

pub(crate) struct Upstream {
    port: u16,
    closing: Arc<AtomicBool>,
}

impl Upstream {
    pub(crate) fn echo() -> Self {
        Self::start(echo)
    }

    /// Answers every request with 200, those below `/fail` with 500, and those below `/stream` without an end.
    pub(crate) fn http() -> Self {
        Self::start(serve)
    }

    fn start(conversation: fn(TcpStream)) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let closing = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&closing);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if until.load(Ordering::Acquire) {
                    break;
                }
                thread::spawn(move || conversation(stream));
            }
        });
        Self { port, closing }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(read) = stream.read(&mut buffer) {
        if read == 0 || stream.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

/// A piece ten times a second, for as long as somebody takes it.
fn flow(mut answers: TcpStream) {
    let mut next = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    while answers.write_all(&next).is_ok() {
        next = b"5\r\npiece\r\n".to_vec();
        thread::sleep(Duration::from_millis(100));
    }
}

/// Requests without a body, one after the other.
fn serve(stream: TcpStream) {
    let Ok(mut answers) = stream.try_clone() else { return };
    let mut lines = BufReader::new(stream).lines();
    while let Some(Ok(request)) = lines.next() {
        let asks = |below: &str| request.split(' ').nth(1).is_some_and(|path| path.starts_with(below));
        let (fails, streams) = (asks("/fail"), asks("/stream"));
        // The rest of the request's head.
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        if streams {
            return flow(answers);
        }
        let status = if fails { "500 Internal Server Error" } else { "200 OK" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: 7\r\n\r\nserved\n");
        if answers.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
