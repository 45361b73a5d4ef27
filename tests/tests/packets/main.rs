//! What happens to packets on their way: between pods and nodes, to the outside and back, ARP and neighbour discovery,
//! source checks, ICMP errors, TTL, MTU, fragments, and packets that are malformed.

mod errors;
mod fragments;
mod gateway;
mod mtu;
mod reach;
mod refused;
mod world;
