//! A packet's way, hook by hook. Each walk reads from top to bottom and ends in an [`Action`].
//!
//! - [`from_pod()`]: what a pod sends. Parse, source check, flow; on a miss service, policy of both ends, new flow; rewrite,
//!   hand over.
//! - [`to_pod()`]: what the host's stack sends to a pod.
//! - [`from_uplink()`]: what comes to the node from outside: of a known flow, to a service (`outside`), to a pod.
//! - [`xdp_uplink()`]: the same at the driver, of flows of clients outside to backends elsewhere.
//! - [`to_uplink()`]: what leaves the node, for the masquerade, and for what processes of the node answer as a service.
//! - [`from_overlay()`]: what comes from other nodes through the tunnel.
//! - [`to_overlay()`]: what the host's stack sends to other nodes through the tunnel.
//! - [`to_services()`]: what the node itself sends to addresses of services, past the socket hooks.
//! - [`sweep()`]: no packet's: the agent has it take out flows that are over.
//!
//! Whoever hands a packet to a pod has judged it: the direct way skips the veth's egress hook.

mod action;
mod address;
mod answer;
mod backend;
mod deliver;
mod dns;
mod errors;
mod from_overlay;
mod from_pod;
mod from_uplink;
mod give_way;
mod inbound;
mod judge;
mod limit;
mod neighbour;
mod opening;
mod outside;
mod route;
mod sweep;
mod tell;
#[cfg(test)]
mod tests;
mod to_overlay;
mod to_pod;
mod to_services;
mod to_uplink;
mod tunnel_port;
mod xdp_uplink;

pub use action::{Action, Step};
pub use address::Whose;
pub use errors::Side;
pub use from_overlay::from_overlay;
pub use from_pod::from_pod;
pub use from_uplink::from_uplink;
pub use inbound::Inbound;
pub use judge::{count_denied, decided};
pub use limit::Passage;
pub use opening::Part;
pub use sweep::{MAX_KEYS, Over, SweepRequest, sweep};
pub use to_overlay::to_overlay;
pub use to_pod::to_pod;
pub use to_services::to_services;
pub use to_uplink::to_uplink;
pub use xdp_uplink::xdp_uplink;

pub use crate::scratch::{Asked, Ends, Route, RouteFlags, Walk, Way};

/// The functions of walks that are stages, as a walk enters them.
pub mod stage {
    pub use super::address::stage::*;
    pub use super::backend::stage::*;
    pub use super::deliver::stage::*;
    pub use super::dns::stage::*;
    pub use super::errors::stage::*;
    pub use super::from_pod::stage::*;
    pub use super::from_uplink::stage::*;
    pub use super::give_way::stage::*;
    pub use super::inbound::stage::*;
    pub use super::judge::stage::*;
    pub use super::limit::stage::*;
    pub use super::neighbour::stage::*;
    pub use super::opening::stage::*;
    pub use super::outside::stage::*;
    pub use super::sweep::stage::*;
    pub use super::tell::stage::*;
    pub use super::to_pod::stage::*;
    pub use super::to_services::stage::*;
    pub use super::tunnel_port::stage::*;
}
