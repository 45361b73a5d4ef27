//! Hooks at the root of the cgroup tree: bind, connect, sendmsg, recvmsg and getpeername, of both families; and a list of
//! what they remember.

mod context;
mod list;

use aya_ebpf::helpers::bpf_set_retval;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use fairlead_datapath::service::sock::{Verdict, bind, connect, peer_name, receive, send};

use self::context::{Call, V4, V6};

/// The call goes on.
const PROCEED: i32 = 1;
/// The call fails.
const FAIL: i32 = 0;
/// `-ECONNREFUSED`, asm-generic/errno.h.
const REFUSED: i32 = -111;
/// `-EADDRINUSE`, asm-generic/errno.h.
const IN_USE: i32 = -98;

fn answer(verdict: Verdict) -> i32 {
    let answer = match verdict {
        Verdict::Proceed => PROCEED,
        Verdict::Refuse => fail(REFUSED),
        Verdict::InUse => fail(IN_USE),
    };
    bounded(answer)
}

fn fail(error: i32) -> i32 {
    // SAFETY: takes a number. Without it the caller would see EPERM.
    unsafe { bpf_set_retval(error) };
    FAIL
}

/// 0 or 1, said in a way that the compiler leaves in: kept on the stack in between, a number is any number to the verifier.
#[inline(always)]
fn bounded(answer: i32) -> i32 {
    let mut answer = answer as u64;
    // SAFETY: arithmetic on a register.
    unsafe { core::arch::asm!("{0} &= 1", inout(reg) answer, options(pure, nomem, nostack)) };
    answer as i32
}

/// bind(2) of an IPv4 socket.
#[cgroup_sock_addr(bind4)]
pub(crate) fn bind4(ctx: SockAddrContext) -> i32 {
    answer(bind(&Call::<V4>::new(ctx)))
}

/// bind(2) of an IPv6 socket.
#[cgroup_sock_addr(bind6)]
pub(crate) fn bind6(ctx: SockAddrContext) -> i32 {
    answer(bind(&Call::<V6>::new(ctx)))
}

/// connect(2) of an IPv4 socket.
#[cgroup_sock_addr(connect4)]
pub(crate) fn connect4(ctx: SockAddrContext) -> i32 {
    answer(connect(&mut Call::<V4>::new(ctx)))
}

/// connect(2) of an IPv6 socket.
#[cgroup_sock_addr(connect6)]
pub(crate) fn connect6(ctx: SockAddrContext) -> i32 {
    answer(connect(&mut Call::<V6>::new(ctx)))
}

/// sendmsg(2) of an IPv4 UDP socket.
#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn sendmsg4(ctx: SockAddrContext) -> i32 {
    answer(send(&mut Call::<V4>::new(ctx)))
}

/// sendmsg(2) of an IPv6 UDP socket.
#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn sendmsg6(ctx: SockAddrContext) -> i32 {
    answer(send(&mut Call::<V6>::new(ctx)))
}

/// recvmsg(2) of an IPv4 UDP socket.
#[cgroup_sock_addr(recvmsg4)]
pub(crate) fn recvmsg4(ctx: SockAddrContext) -> i32 {
    receive(&mut Call::<V4>::new(ctx));
    PROCEED
}

/// recvmsg(2) of an IPv6 UDP socket.
#[cgroup_sock_addr(recvmsg6)]
pub(crate) fn recvmsg6(ctx: SockAddrContext) -> i32 {
    receive(&mut Call::<V6>::new(ctx));
    PROCEED
}

/// getpeername(2) of an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
pub(crate) fn getpeername4(ctx: SockAddrContext) -> i32 {
    peer_name(&mut Call::<V4>::new(ctx));
    PROCEED
}

/// getpeername(2) of an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
pub(crate) fn getpeername6(ctx: SockAddrContext) -> i32 {
    peer_name(&mut Call::<V6>::new(ctx));
    PROCEED
}
