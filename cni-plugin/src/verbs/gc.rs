//! GC

use crate::client::Client;
use crate::conf::NetConf;
use crate::protocol::Request;
use crate::{Error, Version};

/// Releases every attachment of this network that is not listed.
pub(crate) fn gc(conf: &NetConf) -> Result<(), Error> {
    conf.version.require(Version::V1_1_0, "GC")?;
    // Without a list everything would go: that is more likely a mistake than an order.
    let keep = conf.valid_attachments.clone().ok_or_else(|| Error::Config {
        key: "cni.dev/valid-attachments",
        reason: "missing; GC must list the attachments in use, or an empty list if there are none".to_owned(),
    })?;
    Client::connect(&conf.socket)?.ask(&Request::Gc { network: conf.name.clone(), keep }).map(drop)
}
