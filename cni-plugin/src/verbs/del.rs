//! DEL

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::conf::NetConf;
use crate::netlink::Netlink;
use crate::protocol::Attachment;
use crate::{Error, queue, wire};

/// How long the agent may think: the link has to go too, and a kubelet waits to end other pods.
const LIMIT: Duration = Duration::from_secs(7);
/// What a second try has at least.
const LEAST: Duration = Duration::from_secs(1);

/// Unwires a pod, as often as it is asked to and whether or not anything is there. With the agent away, or hanging, the link goes
/// and the rest is queued.
pub(crate) fn del(conf: &NetConf, attachment: &Attachment) -> Result<(), Error> {
    let end = Instant::now() + LIMIT;
    let release = || {
        let left = end.saturating_duration_since(Instant::now());
        Client::connect_within(&conf.socket, left.max(LEAST)).and_then(|mut agent| agent.release(attachment))
    };
    let Err(away) = release() else { return Ok(()) };
    eprintln!("fairlead-cni: {away}; removing the link and queueing the rest of the deletion");
    let directory = queue::directory(&conf.socket);
    if let Err(error) = queue::push(&directory, attachment) {
        // The agent finds out by itself when it next compares its journal with the links that exist.
        eprintln!("fairlead-cni: can't queue the deletion in {}: {error}", directory.display());
    }
    // The agent may have come between the first try and the queue's entry. One that hangs was there before, and looks at the
    // queue when it goes on. It takes the entry out itself, when all of the deletion is done: it has answered before that.
    if !matches!(away, Error::AgentHangs { .. }) && release().is_ok() {
        return Ok(());
    }
    let removed = Netlink::open().and_then(|mut host| wire::remove(&mut host, &attachment.host_link()));
    if let Err(error) = removed {
        eprintln!("fairlead-cni: {error}; the agent will retry");
    }
    Ok(())
}
