//! The source of objects and the events, against real API servers: etcd and kube-apiserver in a network namespace of
//! each test's own, or on a node of a lab whose agent asks them.

mod beside;
mod claims;
mod condition;
mod control;
mod definitions;
mod events;
mod feed;
mod outage;
mod servers;
mod watches;
