//! rtnetlink, as much of it as a pod needs, over a blocking socket.

mod message;
mod socket;

pub(crate) use message::{
    Route, add_address, add_neighbour, add_route, create_veth, delete_link, no_automatic_address,
    no_reverse_path_filter, set_alias, set_up,
};
pub(crate) use socket::{Netlink, Operation, within};
