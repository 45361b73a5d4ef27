//! What services ask of the kernel.

use super::{Backend, Frontend, FrontendKey};

/// The tables of services.
pub trait Tables {
    /// The element of `FRONTENDS` under this key, copied out, [`Frontend::tag`] last.
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend>;

    /// The backend id in an element of `SLOTS`, `None` beyond its end.
    fn slot(&self, index: u32) -> Option<u32>;

    /// An element of `BACKENDS`, which stays where it is; `None` beyond its end.
    fn backend(&self, id: u32) -> Option<&Backend>;

    /// [`Backend::state`], read as one word; 0 beyond the end.
    fn backend_state(&self, id: u32) -> u64;

    /// The low half of [`super::ServiceState::udp_generation`].
    fn udp_generation(&self) -> u32;
}
