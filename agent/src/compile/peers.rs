//! Peers: what is known of every address.
