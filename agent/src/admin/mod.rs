//! The socket for those who look in: status, explanations, drops.
