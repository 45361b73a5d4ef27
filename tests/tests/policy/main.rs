//! NetworkPolicy v1 and ClusterNetworkPolicy, row by row, with packets: every test puts policies in force on one grid of pods and probes all of
//! its cells. Each cell has to be as the row words it and as the reference model says.

mod audit;
mod blocks;
mod capacity;
mod cluster;
mod counters;
mod explain;
mod grid;
mod lives;
mod model;
mod names;
mod nodes;
mod peers;
mod ports;
mod start;
mod types;
