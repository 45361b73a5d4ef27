//! Stages of walks as functions of a program: the verifier checks each once, whoever calls it, and their variables are not
//! on the walk's stack.

use fairlead_datapath::kernel::Stage;
use fairlead_datapath::register::{Answer, Register};
use fairlead_datapath::walk::Walk;

use crate::maps;

/// Names the stages of a kind of program context: for each, the function that it becomes, whether that has the packet, and
/// the registers that it gets besides. An argument that a stage does not use is not passed either, which the verifier takes
/// for a wrong one; so what asks the tables only has no packet.
///
/// The context has `resume(*mut raw) -> Self`. What it makes is `enter`, for [`fairlead_datapath::kernel::Kernel::enter`];
/// a stage that is entered and not named does not compile.
macro_rules! stages {
    ($context:ty, $raw:ty; $($stage:ty => $name:ident with $what:ident($($register:ident),*);)+) => {
        /// Goes through a stage.
        #[inline(always)]
        pub(super) fn enter<S: fairlead_datapath::kernel::Stage>(
            raw: *mut $raw,
            w: &mut fairlead_datapath::walk::Walk,
            arguments: S::Arguments,
        ) -> S::Answer {
            use fairlead_datapath::register::{Arguments as _, Register as _};
            const { assert!($($crate::stages::is::<S, $stage>())||+, "this context does not name the stage") };
            $(if const { $crate::stages::is::<S, $stage>() } {
                let [$($register,)* ..] = arguments.pack();
                return S::Answer::unpack($crate::stages::stages!(@call $what $name raw, w, $($register),*));
            })+
            // Not reached: one of them it is.
            $crate::stages::broken::<S>()
        }

        $($crate::stages::stages!(@function $what $name $context, $raw, $stage, $($register),*);)+
    };
    (@call packet $name:ident $raw:ident, $walk:ident, $($register:ident),*) => { $name($raw, $walk, $($register),*) };
    (@call tables $name:ident $raw:ident, $walk:ident, $($register:ident),*) => { $name($walk, $($register),*) };
    (@function packet $name:ident $context:ty, $raw:ty, $stage:ty, $($register:ident),*) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(raw: *mut $raw, walk: *mut fairlead_datapath::walk::Walk, $($register: u64),*) -> u64 {
            $crate::stages::run::<$stage, _, _>(|| <$context>::resume(raw), walk, [$($register),*])
        }
    };
    (@function tables $name:ident $context:ty, $raw:ty, $stage:ty, $($register:ident),*) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(walk: *mut fairlead_datapath::walk::Walk, $($register: u64),*) -> u64 {
            $crate::stages::run::<$stage, _, _>(|| <$context>::resume(core::ptr::null_mut()), walk, [$($register),*])
        }
    };
}
pub(crate) use stages;

/// Whether two stages are one.
pub(crate) const fn is<A: Stage, B: Stage>() -> bool {
    let (a, b) = (A::NAME.as_bytes(), B::NAME.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// What a stage answers that did not get its scratch memory.
#[inline(always)]
pub(crate) const fn broken<S: Stage>() -> S::Answer {
    <S::Answer as Answer>::BROKEN
}

/// The other side of a call: runs a stage.
#[inline(always)]
pub(crate) fn run<S: Stage, K: fairlead_datapath::kernel::Kernel, const N: usize>(
    kernel: impl FnOnce() -> K,
    walk: *mut Walk,
    given: [u64; N],
) -> u64 {
    use fairlead_datapath::register::Arguments as _;
    let Some(w) = resume(walk) else { return broken::<S>().pack() };
    let mut registers = [0; 3];
    for (register, word) in registers.iter_mut().zip(given) {
        *register = word;
    }
    S::run(&kernel(), w, S::Arguments::unpack(registers)).pack()
}

/// The walk's memory, as a stage gets it.
///
/// It is taken from the map again: what comes as an argument is no memory that a helper may take a key from before kernel
/// 6.2. It has to be an argument all the same, and to be used, or the compiler would believe that the stage does not touch
/// what its caller holds.
#[inline(always)]
pub(crate) fn resume<'w>(walk: *mut Walk) -> Option<&'w mut Walk> {
    if walk.is_null() {
        return None;
    }
    // SAFETY: it is a caller's reference, as the verifier sees to.
    maps::memory(unsafe { (*walk).memory })
}
