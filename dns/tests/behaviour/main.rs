//! What clients see, row by row, from every tier: the short way, the long way, and both over real sockets.

mod answers;
mod client;
mod connections;
mod coredns;
mod corefile;
mod direct;
mod elsewhere;
mod encrypted;
mod fixture;
mod kernel;
mod lossy;
mod messages;
mod operated;
mod outward;
mod process;
mod properties;
mod routes;
mod sites;
mod slow;
mod troubled;
mod upstreams;
