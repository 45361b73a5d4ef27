//! How to ask, and what comes of it.

use std::sync::Arc;
use std::time::Duration;

use super::cache::Rules;
use super::failover::Failover;
use super::order::Policy;
use super::question::Question;
use super::reply::Reply;
use super::trouble::Trouble;
use super::upstreams::Upstream;
use crate::WireName;
use crate::crowd::Bounds;

/// Time-outs and bounds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long one upstream server is waited for before the next is asked too.
    pub patience: Duration,
    /// How long it may all take: less than the 5 seconds after which clients ask again.
    pub deadline: Duration,
    /// How many queries may wait at once, in all and for each client. Beyond that the oldest goes.
    pub in_flight: Bounds,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            patience: Duration::from_millis(500),
            deadline: Duration::from_secs(4),
            in_flight: Bounds { all: 2000, each: 500 },
        }
    }
}

/// How to forward.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The zone of all names that are asked for.
    pub zone: WireName,
    /// The servers for names that are below no stub domain.
    pub upstreams: Vec<Upstream>,
    /// Domains with servers of their own; the longest that a name is below counts.
    pub stubs: Vec<(WireName, Vec<Upstream>)>,
    /// Time-outs and bounds.
    pub limits: Limits,
    /// What is kept, and for how long.
    pub rules: Rules,
    /// How to choose among servers.
    pub policy: Policy,
    /// Whose answers are not the last word.
    pub failover: Failover,
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ForwardError {
    /// Too many queries of the client wait already.
    #[error("too many queries of this client wait for upstream servers: check that they answer")]
    Busy,
    /// Nobody answered in time.
    #[error("no upstream server answered in time: check that they can be reached")]
    TimedOut,
    /// There is no server for this name.
    #[error("there is no upstream server for this name: name one with --upstream")]
    Nobody,
    /// No server has answered for a while, and none is to be tried.
    #[error("no upstream server answers, and failfast_all_unhealthy_upstreams is set: check that they can be reached")]
    Down,
    /// Every server leads back here.
    #[error("every upstream server leads back to this one: name others with --upstream or in resolv.conf")]
    Loop,
    /// The last of the servers can't be asked.
    #[error("an upstream server can't be asked: {0}")]
    Server(Trouble),
}

/// An answer for a client.
#[derive(Debug, Clone)]
pub struct Given {
    /// The answer.
    pub reply: Arc<Reply>,
    /// Its age in seconds.
    pub age: u32,
    /// The highest TTL to hand on.
    pub most: u32,
    /// It was kept.
    pub cached: bool,
}

/// What became of a query that may be answered at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The response is written.
    Written,
    /// The response is written, and this question is to be asked anew: [`Forwarder::renew`](super::Forwarder::renew).
    Renew(Question),
    /// Somebody has to be asked this.
    Nothing(Question),
}
