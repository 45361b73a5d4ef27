//! The node's own network: uplinks, routes to other nodes, settings of the kernel.
