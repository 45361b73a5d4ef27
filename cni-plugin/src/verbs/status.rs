//! STATUS

use crate::client::Client;
use crate::conf::NetConf;
use crate::protocol::Request;
use crate::{Error, Version, ready};

/// Good when an ADD can be served, and while the agent restarts on a node that was ready since it started.
pub(crate) fn status(conf: &NetConf) -> Result<(), Error> {
    conf.version.require(Version::V1_1_0, "STATUS")?;
    match Client::connect(&conf.socket).and_then(|mut agent| agent.ask(&Request::Status)) {
        Err(Error::AgentAway { .. }) if ready::was_ready(&conf.socket) => Ok(()),
        Err(Error::AgentAway { socket, reason }) => Err(Error::NotAvailable { socket, reason }),
        answer => answer.map(drop),
    }
}
