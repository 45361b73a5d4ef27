//! The agent goes away and comes back, in order or by a crash, while traffic flows.
