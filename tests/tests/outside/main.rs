//! Services for clients outside of the cluster, and by addresses that are meant for them: the rows `S…` of the services
//! table that concern NodePorts, load balancers, external addresses and hostPorts. Each test is for TCP and UDP and both
//! families.

mod affinity;
mod balancers;
mod blind;
mod cluster;
mod errors;
mod host_ports;
mod keep;
mod masquerade;
mod networks;
mod node_ports;
mod policy;
mod world;
mod xdp;
