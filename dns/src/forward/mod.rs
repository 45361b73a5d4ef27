//! Questions about other zones, asked of upstream servers.
//!
//! A question's way: the [`cache`] has the answer, or somebody asks the same already, or it becomes a flight: a
//! [`mod@race`] between servers in the [`mod@order`] that the policy says, over UDP, TCP or TLS. The answer is kept as a
//! [`reply`], from which each client's response is copied.

pub mod cache;
mod flights;
mod forwarder;
pub mod order;
mod probes;
mod question;
mod race;
mod reply;
mod server;
mod stream;
mod tend;
mod terms;
pub mod tls;
mod udp;
mod upstreams;
mod waiting;

pub use cache::Rules;
pub use forwarder::Forwarder;
pub use order::Policy;
pub use question::{Question, Wants};
pub use reply::{Client, Lifetime, Reply};
pub use server::{Over, Server, Trouble};
pub use terms::{Config, ForwardError, Given, Kept, Limits};
pub use upstreams::{UpstreamError, from_resolv_conf, parse_stub, parse_upstream, refuse_loops};
