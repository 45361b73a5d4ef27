//! Lists what the hooks remember of sockets. The agent reads the list because sock_diag does not show the storage of UDP
//! sockets (`inet_sk_diag_fill` in net/ipv4/inet_diag.c).

use core::ffi::c_void;
use core::mem::size_of;
use core::ptr::{from_ref, read_volatile};

use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_seq_write};
use fairlead_datapath::service::sock::{ListedSocket, SocketMemory};

/// `struct bpf_iter_meta` (include/linux/bpf.h), as far as it is used.
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

/// `struct bpf_iter__bpf_sk_storage_map` (net/core/bpf_sk_storage.c): a socket that has storage, and what is in it. Both are
/// null at the end.
#[repr(C)]
struct Element {
    meta: *mut Meta,
    map: *mut c_void,
    sk: *mut c_void,
    value: *const SocketMemory,
}

/// Writes a [`ListedSocket`] for each socket that has a memory.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
extern "C" fn list_sockets(element: *const Element) -> i32 {
    // SAFETY: the kernel's context, whose fields the verifier knows; each is loaded as a whole.
    unsafe {
        let sk = read_volatile(&raw const (*element).sk);
        let value = read_volatile(&raw const (*element).value);
        if sk.is_null() || value.is_null() {
            return 0;
        }
        let listed = ListedSocket { cookie: bpf_get_socket_cookie(sk), memory: *value };
        let seq = read_volatile(&raw const (*read_volatile(&raw const (*element).meta)).seq);
        // When the buffer is full the kernel hands it on and asks for this socket again.
        let _full = bpf_seq_write(seq, from_ref(&listed).cast(), size_of::<ListedSocket>() as u32);
    }
    0
}
