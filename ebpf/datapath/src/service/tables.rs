//! What the choice of a backend asks of the kernel.

use super::{Backend, Frontend, FrontendKey};

/// The tables of services. Methods copy values out, or point into arrays whose elements stay where they are.
pub trait Tables {
    /// The value of `frontends` under a key.
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend>;

    /// An element of `slots`: a backend id.
    fn slot(&self, index: u32) -> Option<u32>;

    /// An element of `backends`.
    fn backend(&self, id: u32) -> Option<&Backend>;

    /// The state word of an element of `backends`, read as one.
    fn backend_state(&self, id: u32) -> u64;

    /// How often the set of UDP frontends has changed: a UDP flow that was no service's is looked at again after that.
    fn udp_generation(&self) -> u32;
}
