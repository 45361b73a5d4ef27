//! The eBPF object: loading, pinning, attaching.
