//! Services by cluster address: the rows `S…` of the services table. Each test goes both ways to a service, at the
//! socket and per packet, by TCP and UDP and through both families, unless it says what differs.

mod endpoints;
mod frontends;
mod gone;
mod host;
mod refusal;
mod restart;
mod traffic;
mod unseen;
mod world;
