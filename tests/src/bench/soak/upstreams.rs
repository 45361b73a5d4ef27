//! Three upstream servers, of which one at a time works and the others don't, each in one way after the other.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::bench::dns::upstream::answer_of;

/// How many there are.
const COUNT: usize = 3;

/// How long each works, and has one way not to.
const TURN: Duration = Duration::from_secs(3);

/// For how long one goes on working in the next turn. Who asks the three after each other takes a while, up to
/// `GIVES_UP` for each: were there only one at a time, the change of turn would make a question meet three that don't
/// work, and no server in the world could answer it.
const LINGER: Duration = Duration::from_millis(1500);

/// After which time a server that is silent is left alone, and the next one asked: fairlead-dns' patience, and some more
/// for a busy machine.
#[cfg(test)]
const GIVES_UP: Duration = Duration::from_millis(700);

/// How many questions are remembered with what was done to them.
const REMEMBERED: usize = 4096;

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

/// The deed of a server after this time: each works in every third turn and a little longer, and meanwhile it goes through
/// its misdeeds.
fn deed(server: usize, after: Duration) -> Deed {
    let turn = |after: Duration| usize::try_from(after.as_millis() / TURN.as_millis()).unwrap_or_default();
    let works = |after: Duration| turn(after) % COUNT == server;
    if works(after) || after.checked_sub(LINGER).is_some_and(works) {
        return Deed::Answers;
    }
    MISDEEDS[(turn(after) + server * 2) % MISDEEDS.len()]
}

pub(super) struct Upstreams {
    history: Arc<History>,
}

/// What the servers did.
pub(super) struct History {
    begin: Instant,
    counts: [AtomicU64; NAMES.len()],
    last: Mutex<VecDeque<Done>>,
}

/// What one of them did to a question.
struct Done {
    question: Box<[u8]>,
    server: usize,
    deed: Deed,
    over: &'static str,
    at: Duration,
}

impl History {
    fn new() -> Self {
        Self { begin: Instant::now(), counts: Default::default(), last: Mutex::default() }
    }

    fn last(&self) -> MutexGuard<'_, VecDeque<Done>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, server: usize, question: &[u8], over: &'static str) -> Deed {
        let at = self.begin.elapsed();
        let deed = deed(server, at);
        self.counts[deed as usize].fetch_add(1, Ordering::Relaxed);
        let mut last = self.last();
        if last.len() == REMEMBERED {
            last.pop_front();
        }
        let question = question.get(12..).unwrap_or_default().to_ascii_lowercase().into();
        last.push_back(Done { question, server, deed, over, at });
        deed
    }

    /// What was done to a question lately, in words. `message` is the client's.
    pub(super) fn of(&self, message: &[u8]) -> String {
        let asked = message.get(12..).unwrap_or_default();
        let done: Vec<String> = self
            .last()
            .iter()
            .filter(|done| done.question.starts_with(asked))
            .map(|Done { server, deed, over, at, .. }| {
                format!("{server} {} over {over} at {:.3} s", NAMES[*deed as usize], at.as_secs_f64())
            })
            .collect();
        format!("at {:.3} s: {}", self.begin.elapsed().as_secs_f64(), done.join(", "))
    }
}

#[derive(Clone)]
struct Upstream {
    number: usize,
    history: Arc<History>,
}

fn address(number: usize) -> SocketAddr {
    let last = u8::try_from(number + 1).unwrap_or(u8::MAX);
    SocketAddr::from((Ipv4Addr::new(127, 0, 5, last), 53))
}

impl Upstreams {
    /// Starts them. They go on for as long as the process lives.
    pub(super) fn start() -> Result<Self> {
        let history = Arc::new(History::new());
        for number in 0..COUNT {
            let address = address(number);
            let socket = UdpSocket::bind(address).with_context(|| format!("can't listen at {address}"))?;
            let listener = TcpListener::bind(address)?;
            let upstream = Upstream { number, history: Arc::clone(&history) };
            let of_tcp = upstream.clone();
            thread::spawn(move || upstream.datagrams(&socket));
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let upstream = of_tcp.clone();
                    thread::spawn(move || upstream.frames(stream));
                }
            });
        }
        Ok(Self { history })
    }

    /// What they did.
    pub(super) fn history(&self) -> Arc<History> {
        Arc::clone(&self.history)
    }

    /// As fairlead-dns takes them.
    pub(super) fn addresses(&self) -> String {
        (0..COUNT).map(|number| address(number).to_string()).collect::<Vec<_>>().join(",")
    }

    /// How often they did what.
    pub(super) fn misdeeds(&self) -> Vec<(&'static str, u64)> {
        NAMES.into_iter().zip(self.history.counts.iter().map(|count| count.load(Ordering::Relaxed))).collect()
    }
}

impl Upstream {
    fn datagrams(&self, socket: &UdpSocket) {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let question = &buffer[..length];
            let Some(answer) = answer_of(question) else { continue };
            for datagram in said(self.history.record(self.number, question, "UDP"), question, answer) {
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
            let deed = match self.history.record(self.number, &question, "TCP") {
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
    fn each_misbehaves_in_every_way() {
        for server in 0..COUNT {
            for misdeed in MISDEEDS {
                let mut times = (0..100).map(|turn| TURN * turn + LINGER);
                assert!(times.any(|after| deed(server, after) == misdeed), "{server}: {misdeed:?}");
            }
        }
    }

    #[test]
    fn whoever_asks_all_three_finds_one_that_works_also_at_a_change_of_turn() {
        const ORDERS: [[usize; COUNT]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        for step in 0..u32::try_from(21 * TURN.as_millis() / 50).unwrap() {
            let begin = Duration::from_millis(50) * step;
            for order in ORDERS {
                // Each gives up at once, or makes the question wait.
                for waits in 0..4_u32 {
                    let waited = [0, waits & 1, (waits & 1) + (waits >> 1)];
                    let deeds = [0, 1, 2].map(|at| deed(order[at], begin + GIVES_UP * waited[at]));
                    assert!(deeds.contains(&Deed::Answers), "{begin:?}, {order:?}, {waited:?}: {deeds:?}");
                }
            }
        }
    }

    #[test]
    fn what_was_done_to_a_question_is_found_again_in_any_spelling() {
        let history = History::new();
        let message = |name: &[u8]| [&[0; 12][..], name].concat();
        history.record(0, &message(b"\x03WWW\0"), "UDP");
        history.record(1, &message(b"\x03www\0"), "TCP");
        history.record(2, &message(b"\x03web\0"), "UDP");
        let said = history.of(&message(b"\x03www\0"));
        assert!(said.contains("0 answered over UDP") && said.contains("over TCP"), "{said}");
        assert_eq!(said.matches(" over ").count(), 2, "{said}");
    }
}
