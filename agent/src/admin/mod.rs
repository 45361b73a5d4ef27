//! The socket for those who look in: status, explanations, drops.
//!
//! A client connects, sends one [`Request`] as a line of JSON and reads one [`Reply`] as a line of JSON; after
//! [`Request::Drops`] with `follow` more replies come until it hangs up.

mod client;
mod failure;
mod policy;
mod server;
mod service;
mod status;
mod turn;
mod views;
mod what_if;

pub use client::{ClientError, Connection};
pub(crate) use failure::clear;
pub use failure::leave;
pub use server::{Admin, DEFAULT_SOCKET, serve};
pub use turn::Turn;
pub use views::{
    API, AuditedFlowView, AuditedPolicyView, DifferenceView, DnsView, EndpointView, MapView, MigrationView,
    NetworkView, ObjectCount, ObjectTrouble, PlansView, PodView, PolicyAudit, PolicyChangeView, PolicyExplanation,
    PolicyRuleView, PolicyVerdict, PolicyWhatIf, PortRef, ProgramView, RangeView, RepairView, Reply, Request,
    ServiceExplanation, ServiceView, StatusView, Verdict, VersionView, WarningView, WatchView, WayView, XdpView,
};
pub use what_if::Snapshot;
