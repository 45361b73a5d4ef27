//! The objects as the agent knows them: slim snapshots, kept from the stream, with what changed since it was last asked.

mod local;

pub use local::LocalPod;
