//! Policies: classes of peers and policy sets of this node's pods.
