//! Packets between nodes through the tunnel: where it is taken, what goes through it and what does not, sizes, and what
//! happens when nodes come, agents go and somebody takes the device away.

mod changes;
mod foreign;
mod modes;
mod node_ports;
mod reach;
mod sizes;
mod world;
