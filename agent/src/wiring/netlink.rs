//! The connection to rtnetlink that the agent's parts share.

use super::WiringError;

/// A connection to rtnetlink; cheap to clone. Its worker ends with the last clone.
#[derive(Debug, Clone)]
pub struct Netlink {
    pub(super) handle: rtnetlink::Handle,
}

impl Netlink {
    /// Opens a connection in the network namespace of the calling thread, served by the current tokio runtime.
    ///
    /// # Errors
    /// When the socket can't be opened.
    pub fn open() -> Result<Self, WiringError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(WiringError::Socket)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }
}
