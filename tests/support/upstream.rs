//! A TCP server that sends back what it receives.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

pub(crate) struct Echo {
    port: u16,
    closing: Arc<AtomicBool>,
}

impl Echo {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let closing = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&closing);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if until.load(Ordering::Acquire) {
                    break;
                }
                thread::spawn(move || echo(stream));
            }
        });
        Self { port, closing }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Echo {
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
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}
