//! Three upstream servers, of which one at a time works and the others don't, each in one way after the other.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::bench::dns::upstream::answer_of;

/// How many there are.
const COUNT: usize = 3;

/// How long each works, and has one way not to.
const TURN: Duration = Duration::from_secs(3);

/// What a server does to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Answers,
    /// Nothing.
    IsSilent,
    /// An answer to another question, and one with another id.
    Lies,
    /// Bytes that are no message behind the header.
    Babbles,
    Fails,
    Refuses,
    /// The rest is for those who come over TCP.
    Truncates,
    /// Twice the same, after a while.
    IsSlow,
}

const MISDEEDS: [Deed; 7] =
    [Deed::IsSilent, Deed::Lies, Deed::Babbles, Deed::Fails, Deed::Refuses, Deed::Truncates, Deed::IsSlow];

const NAMES: [&str; 8] = ["answered", "silent", "lied", "babbled", "SERVFAIL", "REFUSED", "truncated", "slow"];

/// The deed of a server in a turn: each works in every third, and meanwhile it goes through its misdeeds.
fn deed(server: usize, turn: usize) -> Deed {
    if turn % COUNT == server { Deed::Answers } else { MISDEEDS[(turn + server * 2) % MISDEEDS.len()] }
}

pub(super) struct Upstreams {
    counts: Arc<[AtomicU64; NAMES.len()]>,
}

#[derive(Clone)]
struct Upstream {
    number: usize,
    begin: Instant,
    counts: Arc<[AtomicU64; NAMES.len()]>,
}

fn address(number: usize) -> SocketAddr {
    let last = u8::try_from(number + 1).unwrap_or(u8::MAX);
    SocketAddr::from((Ipv4Addr::new(127, 0, 5, last), 53))
}

impl Upstreams {
    /// Starts them. They go on for as long as the process lives.
    pub(super) fn start() -> Result<Self> {
        let counts: Arc<[AtomicU64; NAMES.len()]> = Arc::default();
        let begin = Instant::now();
        for number in 0..COUNT {
            let address = address(number);
            let socket = UdpSocket::bind(address).with_context(|| format!("can't listen at {address}"))?;
            let listener = TcpListener::bind(address)?;
            let upstream = Upstream { number, begin, counts: Arc::clone(&counts) };
            let of_tcp = upstream.clone();
            thread::spawn(move || upstream.datagrams(&socket));
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let upstream = of_tcp.clone();
                    thread::spawn(move || upstream.frames(stream));
                }
            });
        }
        Ok(Self { counts })
    }

    /// As fairlead-dns takes them.
    pub(super) fn addresses(&self) -> String {
        (0..COUNT).map(|number| address(number).to_string()).collect::<Vec<_>>().join(",")
    }

    /// How often they did what.
    pub(super) fn misdeeds(&self) -> Vec<(&'static str, u64)> {
        NAMES.into_iter().zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed))).collect()
    }
}

impl Upstream {
    fn deed(&self) -> Deed {
        let turn = self.begin.elapsed().as_millis() / TURN.as_millis();
        let deed = deed(self.number, usize::try_from(turn).unwrap_or_default());
        self.counts[deed as usize].fetch_add(1, Ordering::Relaxed);
        deed
    }

    fn datagrams(&self, socket: &UdpSocket) {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let question = &buffer[..length];
            let Some(answer) = answer_of(question) else { continue };
            for datagram in said(self.deed(), question, answer) {
                // Who does not wait any more has given it up.
                drop(socket.send_to(&datagram, from));
            }
        }
    }

    fn frames(&self, mut stream: TcpStream) {
        let mut length = [0; 2];
        while stream.read_exact(&mut length).is_ok() {
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            if stream.read_exact(&mut question).is_err() {
                return;
            }
            let Some(answer) = answer_of(&question) else { return };
            let deed = match self.deed() {
                // Over TCP all of it fits.
                Deed::Truncates => Deed::Answers,
                Deed::IsSilent => return,
                other => other,
            };
            for message in said(deed, &question, answer) {
                let length = u16::try_from(message.len()).unwrap_or_default().to_be_bytes();
                if stream.write_all(&[&length[..], &message].concat()).is_err() {
                    return;
                }
            }
        }
    }
}

/// What it sends.
fn said(deed: Deed, question: &[u8], answer: Vec<u8>) -> Vec<Vec<u8>> {
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = answer.clone();
        change(&mut changed);
        changed
    };
    match deed {
        Deed::Answers => vec![answer],
        Deed::IsSilent => Vec::new(),
        // The first letter of the name, and the id.
        Deed::Lies => vec![with(&|answer| answer[13] ^= 3), with(&|answer| answer[0] ^= 0x55)],
        Deed::Babbles => {
            vec![question[..2].iter().copied().chain((0..60_u8).map(|byte| byte.wrapping_mul(7))).collect()]
        }
        Deed::Fails | Deed::Refuses => {
            let code = if deed == Deed::Fails { 2 } else { 5 };
            let head = answer.len() - 16;
            let without = |answer: &mut Vec<u8>| {
                answer[3] |= code;
                if answer[7] == 1 {
                    answer[7] = 0;
                    answer.truncate(head);
                }
            };
            vec![with(&without)]
        }
        Deed::Truncates => vec![with(&|answer| answer[2] |= 2)],
        Deed::IsSlow => {
            thread::sleep(Duration::from_millis(2));
            vec![answer.clone(), answer]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_works_at_any_time_and_each_misbehaves_in_every_way() {
        for turn in 0..100 {
            let working = (0..COUNT).filter(|server| deed(*server, turn) == Deed::Answers).count();
            assert_eq!(working, 1, "turn {turn}");
        }
        for server in 0..COUNT {
            for misdeed in MISDEEDS {
                assert!((0..100).any(|turn| deed(server, turn) == misdeed), "{server}: {misdeed:?}");
            }
        }
    }
}
