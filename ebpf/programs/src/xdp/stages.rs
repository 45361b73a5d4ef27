//! What the verifier checks once at the driver: the stages of its walk.

use aya_ebpf::bindings::xdp_md;
use fairlead_datapath::flow::stage::{Stands, Touch};
use fairlead_datapath::packet::stage::Parse;

use super::Buff;
use crate::stages::stages;

stages! {
    Buff, xdp_md;
    Parse => xdp_parse with packet(ether_type);
    Stands => xdp_stands with tables(place);
    Touch => xdp_touch with tables(place);
}
