//! The words of the pods' servers: what a client sends and what a server answers, one line each.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::probe::Identity;

/// What a client asks for. A server takes whatever else it gets for a request without wishes.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Ask {
    /// Bytes to add to the answer.
    pad: usize,
    /// Bytes that make the request as large as wanted.
    fill: String,
}

/// A request of `size` bytes or a little more, with its end of line.
pub(super) fn request(size: usize, pad: usize) -> Vec<u8> {
    let encode = |fill: usize| {
        let ask = Ask { pad, fill: "x".repeat(fill) };
        let mut line = serde_json::to_vec(&ask).expect("it is plain data");
        line.push(b'\n');
        line
    };
    let empty = encode(0).len();
    encode(size.saturating_sub(empty))
}

/// The answer to a request, with its end of line.
pub(super) fn answer(pod: &str, node: &str, peer: SocketAddr, local: SocketAddr, got: &[u8]) -> Vec<u8> {
    let ask: Ask = serde_json::from_slice(got).unwrap_or_default();
    let identity = Identity {
        pod: pod.to_owned(),
        node: node.to_owned(),
        peer: canonical(peer),
        local: canonical(local),
        got: got.len(),
        pad: "x".repeat(ask.pad.min(1 << 20)),
    };
    let mut line = serde_json::to_vec(&identity).expect("it is plain data");
    line.push(b'\n');
    line
}

/// An address as people write it: IPv4 without the mapping of a dual-stack socket.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_size_that_was_asked_for() {
        for size in [100, 1000, 1472, 9000] {
            assert_eq!(request(size, 0).len(), size);
        }
        assert!(request(0, 0).len() < 40);
    }

    #[test]
    fn foreign_words_are_answered_too() {
        let address = "[::ffff:10.0.0.1]:80".parse().unwrap();
        let line = answer("ns/pod", "node-1", address, address, b"GET / HTTP/1.0");
        let identity: Identity = serde_json::from_slice(&line).unwrap();
        assert_eq!(identity.got, 14);
        assert_eq!(identity.peer, "10.0.0.1:80".parse().unwrap());
    }
}
