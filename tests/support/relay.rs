//! A way between two ports of loopback that takes its time: what one end says arrives at the other so much later.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::ports;

/// Starts one to `port`; the port to connect to instead. It ends with the process.
pub(crate) fn delayed(port: u16, by: Duration) -> u16 {
    let entrance = ports::free();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, entrance)).expect("the port is free");
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
            for socket in [&near, &far] {
                socket.set_nodelay(true).expect("a fresh connection takes options");
            }
            let ends = [(near.try_clone(), far.try_clone()), (far.try_clone(), near.try_clone())];
            for (from, to) in ends {
                let (from, to) = (from.expect("a socket can be cloned"), to.expect("a socket can be cloned"));
                carry(from, to, by);
            }
        }
    });
    entrance
}

/// Each piece waits for itself, so that the way is long and not narrow.
fn carry(mut from: TcpStream, mut to: TcpStream, by: Duration) {
    let (under_way, arriving) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        for (due, bytes) in arriving {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        // The other end learns that nothing more comes.
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read) = from.read(&mut buffer) {
            if read == 0 || under_way.send((Instant::now() + by, buffer[..read].to_vec())).is_err() {
                break;
            }
        }
    });
}
