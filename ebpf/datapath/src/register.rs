//! What crosses from a walk into a stage and back: numbers, as registers hold them.

use crate::drop::DropReason;

/// A value that fits in one register.
pub trait Register: Copy {
    /// The register's content.
    fn pack(self) -> u64;

    /// From the register's content, which [`Register::pack`] made.
    fn unpack(word: u64) -> Self;
}

/// What a stage answers.
pub trait Answer: Register {
    /// The answer of a stage that did not get its scratch memory. Never seen; the verifier wants it.
    const BROKEN: Self;
}

/// The arguments of a stage, besides packet and scratch memory: three registers are left for them.
pub trait Arguments {
    /// The registers' content.
    fn pack(self) -> [u64; 3];

    /// From the registers' content.
    fn unpack(words: [u64; 3]) -> Self;
}

impl Arguments for () {
    #[inline(always)]
    fn pack(self) -> [u64; 3] {
        [0; 3]
    }

    #[inline(always)]
    fn unpack(_: [u64; 3]) -> Self {}
}

impl<A: Register> Arguments for (A,) {
    #[inline(always)]
    fn pack(self) -> [u64; 3] {
        [self.0.pack(), 0, 0]
    }

    #[inline(always)]
    fn unpack([a, ..]: [u64; 3]) -> Self {
        (A::unpack(a),)
    }
}

impl<A: Register, B: Register> Arguments for (A, B) {
    #[inline(always)]
    fn pack(self) -> [u64; 3] {
        [self.0.pack(), self.1.pack(), 0]
    }

    #[inline(always)]
    fn unpack([a, b, _]: [u64; 3]) -> Self {
        (A::unpack(a), B::unpack(b))
    }
}

impl<A: Register, B: Register, C: Register> Arguments for (A, B, C) {
    #[inline(always)]
    fn pack(self) -> [u64; 3] {
        [self.0.pack(), self.1.pack(), self.2.pack()]
    }

    #[inline(always)]
    fn unpack([a, b, c]: [u64; 3]) -> Self {
        (A::unpack(a), B::unpack(b), C::unpack(c))
    }
}

/// Makes registers of an enum's variants, all of them: each is its number, and what is no number is the last. One of two is one
/// bit: so the compiler knows that what is unpacked and packed again is what it was.
macro_rules! variants {
    ($type:ident: $variant:ident; else $last:ident) => {
        impl $crate::register::Register for $type {
            #[inline(always)]
            fn pack(self) -> u64 {
                const { assert!(Self::$variant as u64 == 0 && Self::$last as u64 == 1) };
                match self {
                    Self::$variant | Self::$last => self as u64,
                }
            }

            #[inline(always)]
            fn unpack(word: u64) -> Self {
                if word & 1 == 0 { Self::$variant } else { Self::$last }
            }
        }
    };
    ($type:ident: $($variant:ident),+; else $last:ident) => {
        impl $crate::register::Register for $type {
            #[inline(always)]
            fn pack(self) -> u64 {
                match self {
                    $(Self::$variant)|+ | Self::$last => self as u64,
                }
            }

            #[inline(always)]
            fn unpack(word: u64) -> Self {
                $(if word == Self::$variant as u64 {
                    return Self::$variant;
                })+
                Self::$last
            }
        }
    };
}
pub(crate) use variants;

macro_rules! numbers {
    ($($type:ty),+) => {
        $(impl Register for $type {
            #[inline(always)]
            fn pack(self) -> u64 {
                u64::from(self)
            }

            #[inline(always)]
            fn unpack(word: u64) -> Self {
                word as Self
            }
        })+
    };
}

numbers!(u16, u32);

impl Register for () {
    #[inline(always)]
    fn pack(self) -> u64 {
        0
    }

    #[inline(always)]
    fn unpack(_: u64) -> Self {}
}

impl Answer for () {
    const BROKEN: Self = ();
}

impl Answer for u32 {
    const BROKEN: Self = 0;
}

impl Register for bool {
    #[inline(always)]
    fn pack(self) -> u64 {
        u64::from(self)
    }

    #[inline(always)]
    fn unpack(word: u64) -> Self {
        word & 1 != 0
    }
}

impl Answer for bool {
    const BROKEN: Self = false;
}

/// 0, or the reason's number and one.
impl Register for Result<(), DropReason> {
    #[inline(always)]
    fn pack(self) -> u64 {
        match self {
            Ok(()) => 0,
            Err(reason) => reason as u64 + 1,
        }
    }

    #[inline(always)]
    fn unpack(word: u64) -> Self {
        match word {
            0 => Ok(()),
            number => Err(DropReason::from_number((number - 1) as u8).unwrap_or(DropReason::Internal)),
        }
    }
}

impl Answer for Result<(), DropReason> {
    const BROKEN: Self = Err(DropReason::Internal);
}

#[cfg(test)]
mod tests {
    use super::{Arguments, Register};
    use crate::drop::DropReason;

    #[test]
    fn what_goes_into_registers_comes_out_again() {
        for reason in DropReason::ALL {
            let refused: Result<(), DropReason> = Err(*reason);
            assert_eq!(Result::<(), DropReason>::unpack(refused.pack()), refused);
        }
        assert_eq!(Result::<(), DropReason>::unpack(Ok::<(), DropReason>(()).pack()), Ok(()));
        assert_eq!(<(u16, bool)>::unpack((u16::MAX, true).pack()), (u16::MAX, true));
        assert_eq!(<(u32,)>::unpack((u32::MAX,).pack()), (u32::MAX,));
    }

    #[test]
    fn an_unknown_number_is_a_drop() {
        assert_eq!(Result::<(), DropReason>::unpack(250), Err(DropReason::Internal));
    }
}
