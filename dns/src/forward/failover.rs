//! What becomes of answers that somebody else is to improve on.

use hickory_proto::op::ResponseCode;

use super::reply::Reply;

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
