//! The entry points: one function a hook, and the glue from the kernel's context to the datapath, which decides.
//!
//! - `tc`: packets, at the host side of pods' veths and at the uplinks
//! - `xdp`: packets at the driver of an uplink
//! - `sock`: sockets, at the root of the cgroup tree
//! - `stages`: what the verifier checks once, whoever calls it
//! - `maps`: the tables
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod maps;
mod sock;
mod stages;
mod tables;
mod tc;
mod xdp;

/// The helpers used here are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

/// Never reached: a panic that could be is refused by the verifier, for this loop has no end, and by the build, which
/// looks for it in the object.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
