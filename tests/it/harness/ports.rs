//! Ports that are known before anybody listens on them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that the system gives to whoever asks for any, so that what is free stays free while its owner is away: a gateway that
/// is started again has been seen to take the port of its own node.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// An address of this machine that nobody listens on, and that no other call answers.
pub fn free_address() -> SocketAddr {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    // Several processes may test at the same time.
    let next = NEXT.get_or_init(|| AtomicU16::new(rand::random_range(0..COUNT)));
    loop {
        let port = FIRST + next.fetch_add(1, Ordering::Relaxed) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
