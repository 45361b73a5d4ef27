//! Which names are forwarded where, and what becomes of answers that somebody else is to improve on.

use std::sync::Arc;

use hickory_proto::op::ResponseCode;

use super::forwarder::Forwarder;
use super::reply::Reply;
use crate::WireName;
use crate::name::strip_suffix;
use crate::site::scope::covers;

/// Servers to forward to.
#[derive(Clone)]
pub struct Route {
    /// For names in this zone,
    pub from: WireName,
    /// and not in these.
    pub except: Vec<WireName>,
    /// The servers.
    pub forwarder: Arc<Forwarder>,
}

impl Route {
    /// Whether a name, in lower case and wire format, is forwarded there.
    #[must_use]
    pub fn is_for(&self, name: &[u8]) -> bool {
        strip_suffix(name, self.from.as_wire()).is_some() && !covers(&self.except, name)
    }
}

/// Which answers of a server are not taken while somebody else may give another. What says more about the server than about
/// the name ([`Reply::is_failure`]) never is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failover {
    /// With these codes the next server is asked.
    pub server: Vec<ResponseCode>,
    /// With these codes, of the last server, those of the next route are.
    pub route: Vec<ResponseCode>,
    /// They are also asked where a name has no such records.
    pub without_data: bool,
    /// Nobody is asked while no server answers: the client learns at once that there is no answer.
    pub fast: bool,
}

impl Failover {
    /// Whether the next server is asked.
    pub(super) fn leaves_server(&self, reply: &Reply) -> bool {
        reply.is_failure() || self.server.contains(&reply.code())
    }

    /// Whether anybody else is asked.
    pub(super) fn leaves(&self, reply: &Reply) -> bool {
        self.leaves_server(reply) || self.leaves_route(reply)
    }

    /// Whether the servers of the next route are asked.
    pub(super) fn leaves_route(&self, reply: &Reply) -> bool {
        self.route.contains(&reply.code()) || self.without_data && reply.is_without_data()
    }
}
