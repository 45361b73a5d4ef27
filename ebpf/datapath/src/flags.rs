//! Sets of bits in one word, each bit with its name.

/// Declares a set of bits as associated constants, and `BITS`, a list of them all: that is what the record of layouts is
/// made from ([`crate::catalog`]), so a bit can't be added beside it.
macro_rules! flags {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$doc:meta])* pub const $bit:ident: $word:ty = $value:expr;)+
    }) => {
        $(#[$meta])*
        pub struct $name;

        impl $name {
            $($(#[$doc])* pub const $bit: $word = $value;)+

            /// Every bit with its name.
            #[cfg(any(test, feature = "host"))]
            pub const BITS: &[(&str, u64)] = &[$((stringify!($bit), Self::$bit as u64),)+];
        }
    };
}
