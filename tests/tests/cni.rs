//! The CNI plugin as a container runtime calls it: each verb and each error code, by environment and standard input.
