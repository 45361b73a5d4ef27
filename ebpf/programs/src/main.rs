//! The entry points: what the kernel calls, one file per hook.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::tcx_action_base::TCX_NEXT, macros::classifier, programs::TcContext};

/// Passes every packet on to whoever is next on this hook.
#[classifier]
fn pass(_ctx: TcContext) -> i32 {
    TCX_NEXT
}

/// Helpers that only GPL-compatible programs may call are offered to programs with this section alone.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

/// Nothing here may panic: the verifier refuses a program that gets to this loop.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
