//! Translation under load: what short connections, ports that come back and many connections at once get (S49). Each test
//! says what was dropped when one of them fails.

mod concurrent;
mod reuse;
mod steady;
mod world;
