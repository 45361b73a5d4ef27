//! Questions about other zones, asked of upstream servers.
//!
//! A question's way: the [`cache`] has the answer, or somebody asks the same already, or it is sent to the first server in
//! the [`mod@order`] that the policy says, and whoever reads the answer hands it on ([`direct`]). Where that does not do, it
//! becomes a flight: a [`mod@race`] between servers over UDP, TCP or TLS. The answer is kept as a [`reply`], from which each
//! client's response is copied.

pub mod cache;
mod direct;
mod failover;
mod flights;
mod forwarder;
pub mod order;
mod probes;
mod question;
mod race;
mod reply;
mod sent;
mod server;
mod stream;
mod tend;
mod terms;
pub mod tls;
mod trouble;
mod udp;
mod upstreams;
mod waiting;

pub use cache::{Rules, Scope};
pub use failover::Failover;
pub use forwarder::{Forwarder, Route};
pub use order::Policy;
pub use question::{Question, Wants};
pub use reply::{Client, Lifetime, Reply};
pub use server::Server;
pub use terms::{Config, ForwardError, Given, Kept, Limits};
pub use trouble::Trouble;
pub use upstreams::{Over, Upstream, UpstreamError, from_resolv_conf, parse_stub, parse_upstream, refuse_loops};
