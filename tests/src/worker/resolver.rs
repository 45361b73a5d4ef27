//! A resolver that asks one question again and again.

use std::net::{SocketAddr, UdpSocket};

use socket2::Type;

use super::dial;
use crate::probe::{Probe, ProbeError};

/// Asks for the A record of a name (RFC 1035, section 4), by turns from a new socket, as the C library does, and from one that
/// it keeps, as resolvers within programs do: the flow of that one is as old as the load.
pub(super) struct Resolver {
    server: SocketAddr,
    message: Vec<u8>,
    kept: Option<UdpSocket>,
    asked: u16,
}

impl Resolver {
    pub(super) fn new(server: SocketAddr, name: &str) -> Self {
        // Recursion desired, one question.
        let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.trim_end_matches('.').split('.') {
            message.push(u8::try_from(label.len()).expect("a label has at most 63 bytes"));
            message.extend(label.bytes());
        }
        // The root, type A, class IN.
        message.extend([0, 0, 1, 0, 1]);
        Self { server, message, kept: None, asked: 0 }
    }

    /// Asks once.
    pub(super) fn ask(&mut self) -> Result<(), ProbeError> {
        self.asked = self.asked.wrapping_add(1);
        self.message[..2].copy_from_slice(&self.asked.to_be_bytes());
        if self.asked.is_multiple_of(2) {
            return exchange(&connect(self.server)?, &self.message);
        }
        let socket = match self.kept.take() {
            Some(kept) => kept,
            None => connect(self.server)?,
        };
        exchange(self.kept.insert(socket), &self.message)
    }
}

fn connect(server: SocketAddr) -> Result<UdpSocket, ProbeError> {
    let probe = Probe::udp(server.ip(), server.port());
    let socket = dial::socket(&probe, Type::DGRAM)?;
    socket.connect(&server.into())?;
    let socket: UdpSocket = socket.into();
    socket.set_read_timeout(Some(probe.timeout))?;
    Ok(socket)
}

/// Sends a query and waits for its answer; one that came too late for an earlier query is not.
fn exchange(socket: &UdpSocket, message: &[u8]) -> Result<(), ProbeError> {
    socket.send(message)?;
    let mut answer = [0; 4096];
    loop {
        let count = socket.recv(&mut answer)?;
        match answer.get(..count.min(12)) {
            Some(header) if count >= 12 && header[..2] == message[..2] => {
                return match (header[3] & 15, header[6], header[7]) {
                    (0, 0, 0) => Err(ProbeError::Other("DNS: no record in the answer".into())),
                    (0, _, _) => Ok(()),
                    (code, _, _) => Err(ProbeError::Other(format!("DNS: response code {code}"))),
                };
            }
            // A response.
            Some(header) if count >= 12 && header[2] & 0x80 != 0 => {}
            _ => return Err(ProbeError::Other("DNS: this is no answer to the question".into())),
        }
    }
}
