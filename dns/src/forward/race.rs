//! One question to several servers: one, after a while or a failure the next too, and the first good answer counts.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::failover::Failover;
use super::question::Question;
use super::reply::Reply;
use super::server::{More, Server};
use super::terms::ForwardError;
use super::trouble::Trouble;

/// So much of the time that one server is waited for passes before those where nobody listened are asked once more.
const PAUSE: u32 = 5;

/// Asks in this order. A server that was silent is asked once more, since a datagram may be lost, and without an OPT
/// record unless signatures are wanted, since some servers drop what has one. One that said that it can't is not asked
/// again: if it leads back here, two questions for one would be four the next time. Where nobody listens the next is asked
/// at once, and the same once more, mostly over another socket: it may be about to start, or the ICMP error is forged, or
/// came of another question.
pub(super) async fn race(
    servers: &[Arc<Server>],
    question: &Question,
    patience: Duration,
    failover: &Failover,
    tried: Tried,
    deadline: Instant,
) -> Result<Reply, ForwardError> {
    let count = servers.len();
    let mut answered = vec![false; count];
    let mut steps = (0..count * 2).map(|step| (step % count, step >= count));
    let mut attempts = FuturesUnordered::new();
    let mut failure = None;
    let mut trouble: Option<Trouble> = None;
    let mut next = Instant::now();
    let mut exhausted = false;
    // When nobody wants an answer any more all of this is dropped.
    let mut guard = Silence { servers, patience, since: vec![None; count] };
    let attempt = |at: usize, server: &Arc<Server>, again, was_silent, more: Option<More>| {
        let server = Arc::clone(server);
        async move {
            let result = match more {
                Some(more) => Box::pin(server.go_on(question, more)).await,
                None => server.ask(question, was_silent).await,
            };
            (at, again, result)
        }
    };
    if !matches!(tried, Tried::Nothing) {
        steps.next();
    }
    match tried {
        Tried::Nothing => {}
        Tried::Silent(since) => guard.since[0] = Some(since.into()),
        Tried::Failed(error) => {
            trouble = Some(error);
            if count == 1 {
                next += patience / PAUSE;
            }
        }
        Tried::Said(reply) if !failover.leaves_server(&reply) => return Ok(*reply),
        Tried::Said(reply) => {
            answered[0] = true;
            failure = Some(*reply);
        }
        Tried::Partly(more) => {
            if let Some(server) = servers.first() {
                // A part is better than nothing.
                if let More::Rest(cut) = &more {
                    failure = Some((**cut).clone());
                }
                guard.since[0] = Some(next);
                attempts.push(attempt(0, server, false, false, Some(more)));
                next += patience;
            }
        }
    }
    loop {
        if exhausted && attempts.is_empty() {
            return failure.ok_or_else(|| trouble.map_or(ForwardError::TimedOut, ForwardError::Server));
        }
        tokio::select! {
            // What has come counts, however late it is looked at.
            biased;
            Some((at, again, result)) = attempts.next() => {
                guard.since[at] = None;
                next = Instant::now();
                match result {
                    Ok(reply) if !failover.leaves_server(&reply) => return Ok(reply),
                    // Somebody else may do better; if nobody does, this is the answer.
                    Ok(reply) => {
                        answered[at] = true;
                        // What is said of the name is better than what is said of a server.
                        let is_better = |kept: &Reply| kept.is_failure() && !reply.is_failure();
                        if failure.as_ref().is_none_or(is_better) {
                            failure = Some(reply);
                        }
                    }
                    Err(error) => {
                        answered[at] |= again;
                        trouble = Some(error);
                        if steps.len() == count {
                            next += patience / PAUSE;
                        }
                    }
                }
            }
            () = sleep_until(deadline) => return failure.ok_or(ForwardError::TimedOut),
            () = sleep_until(next), if !exhausted => match steps.next() {
                Some((at, again)) => {
                    if answered[at] {
                        continue;
                    }
                    let Some(server) = servers.get(at) else { continue };
                    let was_silent = again && guard.since[at].is_some();
                    guard.since[at].get_or_insert_with(Instant::now);
                    attempts.push(attempt(at, server, again, was_silent, None));
                    next = Instant::now() + patience;
                }
                None => exhausted = true,
            },
        }
    }
}

/// What has come of asking the first server.
pub(super) enum Tried {
    /// It is not asked yet.
    Nothing,
    /// Nothing, since then.
    Silent(std::time::Instant),
    /// It could not be asked.
    Failed(Trouble),
    /// This.
    Said(Box<Reply>),
    /// Something that takes more.
    Partly(More),
}

/// Servers that are waited for, since when. Those that were asked a moment ago are not to blame.
struct Silence<'s> {
    servers: &'s [Arc<Server>],
    patience: Duration,
    since: Vec<Option<Instant>>,
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        for (server, since) in self.servers.iter().zip(&self.since) {
            if let Some(since) = since {
                server.was_silent((*since).into(), self.patience);
            }
        }
    }
}
