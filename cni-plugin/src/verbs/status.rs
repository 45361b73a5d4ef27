//! STATUS

use std::time::Duration;

use crate::client::Client;
use crate::conf::NetConf;
use crate::protocol::Request;
use crate::{Error, Version, ready};

/// How long the agent may think. A runtime asks every five seconds, and a kubelet waits for the answer.
const LIMIT: Duration = Duration::from_secs(2);

/// Good when an ADD can be served, and while the agent restarts on a node that was ready since it started. One that hangs
/// is about to be restarted, by its liveness probe.
pub(crate) fn status(conf: &NetConf) -> Result<(), Error> {
    conf.version.require(Version::V1_1_0, "STATUS")?;
    let asked = Client::connect_within(&conf.socket, LIMIT).and_then(|mut agent| agent.ask(&Request::Status));
    let socket = || conf.socket.display().to_string();
    match asked {
        Err(Error::AgentAway { .. } | Error::AgentHangs { .. }) if ready::was_ready(&conf.socket) => Ok(()),
        Err(Error::AgentAway { socket, reason }) => Err(Error::NotAvailable { socket, reason }),
        Err(Error::AgentHangs { .. }) => Err(Error::NotAvailable { socket: socket(), reason: "it hangs".to_owned() }),
        answer => answer.map(drop),
    }
}
