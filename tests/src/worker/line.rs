//! The words of the pods' servers: what a client sends and what a server answers, one line each.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::probe::Identity;

/// What a client asks for. A server takes whatever else it gets for a request without wishes.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Ask {
    /// Bytes to add to the answer.
    pad: usize,
    /// Bytes that make the request as large as wanted.
    fill: String,
    /// How many milliseconds the server waits before it answers and closes.
    #[serde(default, skip_serializing_if = "is_none")]
    later: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_none(later: &u64) -> bool {
    *later == 0
}

/// A request of `size` bytes or a little more, with its end of line.
pub(super) fn request(size: usize, pad: usize) -> Vec<u8> {
    let encode = |fill: usize| line_of(&Ask { pad, fill: "x".repeat(fill), later: 0 });
    let empty = encode(0).len();
    encode(size.saturating_sub(empty))
}

/// A request to be answered after this time, with its end of line.
pub(super) fn request_later(silence: Duration) -> Vec<u8> {
    line_of(&Ask { later: u64::try_from(silence.as_millis()).unwrap_or(u64::MAX), ..Ask::default() })
}

/// How long the server waits before it answers a request.
pub(super) fn silence(got: &[u8]) -> Option<Duration> {
    let ask: Ask = serde_json::from_slice(got).unwrap_or_default();
    (ask.later > 0).then(|| Duration::from_millis(ask.later))
}

fn line_of(words: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(words).expect("it is plain data");
    line.push(b'\n');
    line
}

/// The answer to a request, with its end of line.
pub(super) fn answer(pod: &str, node: &str, peer: SocketAddr, local: SocketAddr, got: &[u8]) -> Vec<u8> {
    let ask: Ask = serde_json::from_slice(got).unwrap_or_default();
    line_of(&Identity {
        pod: pod.to_owned(),
        node: node.to_owned(),
        peer: canonical(peer),
        local: canonical(local),
        got: got.len(),
        pad: "x".repeat(ask.pad.min(1 << 20)),
    })
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
    fn only_who_asks_for_it_waits() {
        assert_eq!(silence(&request(0, 0)), None);
        assert_eq!(silence(&request_later(Duration::from_secs(150))), Some(Duration::from_secs(150)));
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
