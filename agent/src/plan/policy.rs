//! Order of the changes to the tables of policies and peers.
