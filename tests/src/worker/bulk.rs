//! Bulk transfers: [`crate::bulk`] says what for.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::bulk::Bulk;

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);

/// Payload of a datagram: it fits into a packet.
const DATAGRAM: usize = 1_200;

/// Datagrams that go at once, and the pause behind them.
const BATCH: (usize, Duration) = (5, Duration::from_millis(1));

/// Receives, and gives the bytes that counted: none if nobody sends.
pub(super) fn receive(bulk: &Bulk) -> Result<u64> {
    let here = SocketAddr::from((Ipv6Addr::UNSPECIFIED, bulk.to.port()));
    if bulk.udp {
        let socket = UdpSocket::bind(here)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        return count(bulk, |buffer| socket.recv(buffer));
    }
    let listener = TcpListener::bind(here)?;
    listener.set_nonblocking(true)?;
    let begun = Instant::now();
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock && begun.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error.into()),
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    count(bulk, |buffer| stream.read(buffer))
}

fn count(bulk: &Bulk, mut read: impl FnMut(&mut [u8]) -> std::io::Result<usize>) -> Result<u64> {
    let mut buffer = vec![0; 1 << 18];
    let (mut counted, mut first) = (0, None);
    loop {
        let bytes = match read(&mut buffer) {
            Ok(0) => return Ok(counted),
            Ok(bytes) => bytes as u64,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(counted),
            Err(error) => return Err(error.into()),
        };
        let since = first.get_or_insert_with(Instant::now).elapsed();
        if since >= bulk.warm + bulk.during {
            return Ok(counted);
        }
        if since >= bulk.warm {
            counted += bytes;
        }
    }
}

/// Sends until the receiver has enough.
pub(super) fn send(bulk: &Bulk) -> Result<()> {
    let until = Instant::now() + PATIENCE + bulk.warm + bulk.during;
    let buffer = vec![0; 1 << 17];
    if bulk.udp {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        let until = Instant::now() + bulk.warm + bulk.during + BATCH.1 * 100;
        while Instant::now() < until {
            for _ in 0..BATCH.0 {
                // Refused at the end, when the receiver has gone.
                let _ = socket.send_to(&buffer[..DATAGRAM], mapped(bulk.to));
            }
            thread::sleep(BATCH.1);
        }
        return Ok(());
    }
    let mut stream = loop {
        match TcpStream::connect_timeout(&bulk.to, PATIENCE) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() >= until => return Err(error).context("nobody listens"),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    };
    stream.set_write_timeout(Some(PATIENCE))?;
    while Instant::now() < until && stream.write_all(&buffer).is_ok() {}
    Ok(())
}

/// As a socket of both families takes it.
fn mapped(to: SocketAddr) -> SocketAddr {
    match to {
        SocketAddr::V4(v4) => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
        v6 @ SocketAddr::V6(_) => v6,
    }
}
