//! A client that asks as resolvers do: again after 5 s, and then no more.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use super::upstreams::History;

/// How many failures are told in full.
const EXAMPLES: usize = 10;

/// Questions that wait at once.
const WINDOW: usize = 64;

/// When a resolver asks again, and after how often it gives up (resolv.conf(5): `timeout`, `attempts`).
const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: u8 = 2;

/// What became of questions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Answered as they should be.
    pub answered: u64,
    /// Of those, at the second attempt.
    pub again: u64,
    /// Answered with an error.
    pub failed: u64,
    /// Never answered.
    pub lost: u64,
    /// Answered with something else.
    pub wrong: u64,
    /// Some of those that were not answered well, with what upstream servers did to them.
    pub examples: Vec<String>,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        let Self { answered, again, failed, lost, wrong, examples } = other;
        self.answered += answered;
        self.again += again;
        self.failed += failed;
        self.lost += lost;
        self.wrong += wrong;
        self.examples.extend_from_slice(examples);
    }
}

impl Tally {
    fn tell(&mut self, example: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }
}

/// A question that waits.
struct Asked {
    id: u16,
    /// The address that is right.
    address: [u8; 4],
    message: Vec<u8>,
    since: Instant,
    attempts: u8,
}

impl Asked {
    /// Its name, as labels.
    fn name(&self) -> String {
        let end = self.message.len().saturating_sub(5);
        String::from_utf8_lossy(self.message.get(13..end).unwrap_or_default()).into_owned()
    }
}

/// The name of a question, and the address that is right: of the zone, one of a hundred that are kept, or one that never comes
/// again.
fn name(client: u64, number: u64) -> (String, [u8; 4]) {
    const WORLD: [u8; 4] = [198, 51, 100, 7];
    match number % 4 {
        0 => ("web.shop.svc.cluster.local".to_owned(), [10, 96, 0, 1]),
        1 => (format!("www-{}.example.org", number / 4 % 100), WORLD),
        _ => (format!("c{client}-{number}.example.net"), WORLD),
    }
}

fn message(id: u16, name: &str) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap_or_default());
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// Waits until the server knows its zone.
pub(super) fn wait(server: SocketAddr) -> Result<()> {
    let socket = socket(server)?;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(30) {
        let mut buffer = [0; 1500];
        // Nobody listens yet.
        drop(socket.send(&message(1, "web.shop.svc.cluster.local")));
        if let Ok(length) = socket.recv(&mut buffer)
            && buffer[..length].get(3).is_some_and(|flags| flags & 15 == 0)
        {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    bail!("fairlead-dns does not answer within 30 s");
}

fn socket(server: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    Ok(socket)
}

/// Asks, with some questions waiting at once.
pub(super) fn ask(
    server: SocketAddr,
    client: u64,
    questions: u64,
    progress: &AtomicU64,
    history: &History,
) -> Result<Tally> {
    let socket = socket(server)?;
    let mut waiting: Vec<Option<Asked>> = (0..WINDOW).map(|_| None).collect();
    let (mut next, mut done) = (0, 0);
    let mut tally = Tally::default();
    let mut looked = Instant::now();
    let mut buffer = [0; 4096];
    while done < questions {
        for (place, slot) in waiting.iter_mut().enumerate().filter(|(_, slot)| slot.is_none()) {
            if next == questions {
                break;
            }
            let (name, address) = name(client, next);
            // The place is in the id, so that an answer finds it; the rest tells it from those before.
            let id = u16::try_from((next * WINDOW as u64 + place as u64) % 65_536).unwrap_or_default();
            let message = message(id, &name);
            socket.send(&message)?;
            *slot = Some(Asked { id, address, message, since: Instant::now(), attempts: 1 });
            next += 1;
        }
        let before = done;
        if let Ok(length) = socket.recv(&mut buffer) {
            let answer = &buffer[..length];
            if let Some(found) = found(&mut waiting, answer) {
                if !judge(&found, answer, &mut tally) {
                    tally.tell(|| format!("{:?} {}", found.name(), history.of(&found.message)));
                }
                done += 1;
            }
        }
        if looked.elapsed() > Duration::from_millis(500) {
            looked = Instant::now();
            for slot in &mut waiting {
                let Some(asked) = slot.as_mut().filter(|asked| asked.since.elapsed() > TIMEOUT) else { continue };
                if asked.attempts == ATTEMPTS {
                    tally.lost += 1;
                    tally.tell(|| format!("{:?}, lost, {}", asked.name(), history.of(&asked.message)));
                    done += 1;
                    *slot = None;
                } else {
                    asked.attempts += 1;
                    asked.since = Instant::now();
                    socket.send(&asked.message)?;
                }
            }
        }
        progress.fetch_add(done - before, Ordering::Relaxed);
    }
    Ok(tally)
}

/// The question that an answer is to.
fn found(waiting: &mut [Option<Asked>], answer: &[u8]) -> Option<Asked> {
    let id = u16::from_be_bytes([*answer.first()?, *answer.get(1)?]);
    let slot = waiting.get_mut(usize::from(id) % WINDOW)?;
    if slot.as_ref()?.id == id { slot.take() } else { None }
}

/// Whether it is answered well.
fn judge(asked: &Asked, answer: &[u8], tally: &mut Tally) -> bool {
    let before = tally.answered;
    let same_question = answer.get(12..asked.message.len()) == asked.message.get(12..);
    match answer.get(3).map(|flags| flags & 15) {
        Some(0) if same_question && answer.ends_with(&asked.address) => {
            tally.answered += 1;
            tally.again += u64::from(asked.attempts > 1);
        }
        Some(2 | 5) => tally.failed += 1,
        _ => tally.wrong += 1,
    }
    tally.answered > before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        let (name, address) = name(1, 1);
        Asked { id: 65, address, message: message(65, &name), since: Instant::now(), attempts: 1 }
    }

    #[test]
    fn an_answer_finds_its_question_and_is_judged_by_it() {
        let mut waiting: Vec<Option<Asked>> = (0..WINDOW).map(|_| None).collect();
        waiting[1] = Some(asked());
        assert!(found(&mut waiting, &[0, 129]).is_none(), "the same place, and another question");
        let good = crate::bench::dns::upstream::answer_of(&asked().message).unwrap();
        let question = found(&mut waiting, &good).unwrap();
        assert!(waiting[1].is_none());
        let verdict = |change: fn(&mut Vec<u8>)| {
            let (mut answer, mut tally) = (good.clone(), Tally::default());
            change(&mut answer);
            judge(&question, &answer, &mut tally);
            tally
        };
        assert_eq!(verdict(|_| ()), Tally { answered: 1, ..Tally::default() });
        assert_eq!(verdict(|answer| answer[3] |= 2), Tally { failed: 1, ..Tally::default() });
        assert_eq!(verdict(|answer| answer[14] ^= 1), Tally { wrong: 1, ..Tally::default() });
        assert_eq!(verdict(|answer| *answer.last_mut().unwrap() ^= 1), Tally { wrong: 1, ..Tally::default() });
    }
}
