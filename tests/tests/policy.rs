//! NetworkPolicy: the rows `P…` of the policy table, and matrices of pods against the reference model.
