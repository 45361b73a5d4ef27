//! Bulk: how much of what somebody sends without a pause arrives.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::proto::Request;
use crate::vantage::{Probes, lab_works};

/// A transfer.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Bulk {
    /// Where to, as the sender has it; the receiver listens on that port.
    pub to: SocketAddr,
    /// Datagrams, some 40 Mbit/s of them; else TCP, as much as the connection takes.
    pub udp: bool,
    /// What arrives in this time after the first byte does not count: bursts, and the beginning of a connection.
    pub warm: Duration,
    /// How long is counted.
    pub during: Duration,
}

impl Bulk {
    /// By one TCP connection.
    #[must_use]
    pub fn tcp(ip: impl Into<IpAddr>, port: u16) -> Self {
        let (warm, during) = (Duration::from_millis(600), Duration::from_millis(1500));
        Self { to: SocketAddr::new(ip.into(), port), udp: false, warm, during }
    }

    /// By datagrams.
    #[must_use]
    pub fn udp(ip: impl Into<IpAddr>, port: u16) -> Self {
        Self { udp: true, ..Self::tcp(ip, port) }
    }

    /// Sends, and gives the bits a second that arrived: payload alone.
    #[must_use]
    pub fn measure(&self, from: &impl Probes, at: &impl Probes) -> f64 {
        let (from, at) = (from.vantage(), at.vantage());
        let bytes: u64 = thread::scope(|scope| {
            let received = scope.spawn(|| lab_works(at, at.pool().ask(&Request::Receive(*self))));
            lab_works(from, from.pool().ask::<()>(&Request::Send(*self)));
            received.join().expect("it says why itself")
        });
        bytes as f64 * 8.0 / self.during.as_secs_f64()
    }
}
