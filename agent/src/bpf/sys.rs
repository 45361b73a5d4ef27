//! bpf(2) as far as aya has no call for it: batches, links of any kind, a map's own description. The only unsafe code.
//!
//! The structs are the members of `union bpf_attr` (include/uapi/linux/bpf.h). The kernel takes a shorter attribute than
//! its own and reads the rest as zero; it takes a longer one if what it doesn't know is zero.
#![expect(unsafe_code, reason = "system calls that no crate wraps")]

use std::ffi::{CString, c_long};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Gives back memory that was needed for a while: the kernel's types (BTF), which are read to load programs, leave tens of MiB of
/// small pieces.
pub(super) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a call without pointers.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// `enum bpf_cmd`.
#[derive(Debug, Clone, Copy)]
enum Cmd {
    MapCreate = 0,
    MapLookupElem = 1,
    MapUpdateElem = 2,
    MapDeleteElem = 3,
    ObjPin = 6,
    ObjGet = 7,
    ObjGetInfoByFd = 15,
    ProgQuery = 16,
    MapLookupBatch = 24,
    MapUpdateBatch = 26,
    MapDeleteBatch = 27,
    LinkCreate = 28,
    LinkUpdate = 29,
    IterCreate = 33,
    LinkDetach = 34,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Elem {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[derive(IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Obj {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    pad: u32,
    expected_revision: u64,
}

/// The same for an iterator.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct IterLinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    pad: u32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// All of it: the kernel writes the last member too, whatever length it is told.
#[derive(Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct ProgQuery {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// Where a new link goes among those of its hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// Where the kernel puts it: the last, where there is an order.
    Any,
    /// Before all others.
    First,
    /// In the driver: there is one at most.
    Driver,
}

/// `BPF_MPROG_MAX` (kernel/bpf/mprog.c): most programs of a tcx hook.
const MAX_PROGRAMS: usize = 64;

/// The head of `struct bpf_map_info`.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct MapInfo {
    pub(super) map_type: u32,
    pub(super) id: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) map_flags: u32,
}

/// The head of `struct bpf_link_info`: `a` and `b` are the first words of its union.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct LinkInfo {
    pub(super) link_type: u32,
    pub(super) id: u32,
    pub(super) prog_id: u32,
    pub(super) pad: u32,
    /// `tcx.ifindex`, `xdp.ifindex`, or the low half of `cgroup.cgroup_id`.
    pub(super) a: u32,
    /// `tcx.attach_type`, or the high half of `cgroup.cgroup_id`.
    pub(super) b: u32,
}

/// # Safety
/// Every pointer and length in `attr` must be what `cmd` says it is, and point to memory that lives over the call and,
/// where the kernel writes, is writable.
unsafe fn bpf(cmd: Cmd, attr: &mut [u8]) -> io::Result<c_long> {
    // SAFETY: `attr` is valid for its length; for what it points to, see above.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, cmd as c_long, attr.as_mut_ptr(), attr.len()) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// # Safety
/// As [`bpf`], and `cmd` must be one that returns a new file descriptor.
unsafe fn bpf_fd(cmd: Cmd, attr: &mut [u8]) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(cmd, attr) }?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn pointer(bytes: &[u8]) -> u64 {
    bytes.as_ptr() as u64
}

fn pointer_mut(bytes: &mut [u8]) -> u64 {
    bytes.as_mut_ptr() as u64
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

/// A map of this shape, unnamed.
pub(super) fn map_create(info: &MapInfo) -> io::Result<OwnedFd> {
    let MapInfo { map_type, key_size, value_size, max_entries, map_flags, .. } = *info;
    let mut attr = MapCreate { map_type, key_size, value_size, max_entries, map_flags };
    // SAFETY: no pointers.
    unsafe { bpf_fd(Cmd::MapCreate, attr.as_mut_bytes()) }
}

/// Pins an object.
pub(super) fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = Obj { pathname: path.as_ptr() as u64, bpf_fd: raw(fd), file_flags: 0 };
    // SAFETY: `path` is a C string that lives over the call.
    unsafe { bpf(Cmd::ObjPin, attr.as_mut_bytes()) }.map(drop)
}

/// Opens a pinned object.
pub(super) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = Obj { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: `path` is a C string that lives over the call.
    unsafe { bpf_fd(Cmd::ObjGet, attr.as_mut_bytes()) }
}

fn info<T: IntoBytes + FromBytes + Default>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let bytes = info.as_mut_bytes();
    let info_len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut attr = InfoAttr { bpf_fd: raw(fd), info_len, info: pointer_mut(bytes) };
    // SAFETY: the kernel writes at most `info_len` bytes to `info`, which is writable for that and takes any bytes.
    unsafe { bpf(Cmd::ObjGetInfoByFd, attr.as_mut_bytes()) }?;
    Ok(info)
}

/// What a map is.
pub(super) fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    info(fd)
}

/// What a link is.
pub(super) fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    info(fd)
}

/// Attaches a program by a link. `target` is an interface index or the descriptor of a cgroup.
pub(super) fn link_create(
    prog: BorrowedFd<'_>,
    target: u32,
    attach_type: u32,
    position: Position,
) -> io::Result<OwnedFd> {
    /// `BPF_F_BEFORE`; without another program, before all.
    const BEFORE: u32 = 1 << 3;
    /// `XDP_FLAGS_DRV_MODE`: not by an skb, where that is slower than what comes behind.
    const DRIVER: u32 = 1 << 2;
    let flags = match position {
        Position::Any => 0,
        Position::First => BEFORE,
        Position::Driver => DRIVER,
    };
    let mut attr =
        LinkCreate { prog_fd: raw(prog), target, attach_type, flags, relative_fd: 0, pad: 0, expected_revision: 0 };
    // SAFETY: no pointers.
    unsafe { bpf_fd(Cmd::LinkCreate, attr.as_mut_bytes()) }
}

/// Attaches an iterator's program to the elements of a map.
pub(super) fn iter_link_create(prog: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const BPF_TRACE_ITER: u32 = 28;
    // `union bpf_iter_link_info`, of which the map's descriptor is the first and smallest member.
    let info = raw(map).to_ne_bytes();
    let mut attr = IterLinkCreate {
        prog_fd: raw(prog),
        target_fd: 0,
        attach_type: BPF_TRACE_ITER,
        flags: 0,
        iter_info: pointer(&info),
        iter_info_len: info.len() as u32,
        pad: 0,
    };
    // SAFETY: the pointer is to `info`, of the length that is said.
    unsafe { bpf_fd(Cmd::LinkCreate, attr.as_mut_bytes()) }
}

/// Begins an iteration: what the program writes is read from the descriptor.
pub(super) fn iter_create(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = IterCreate { link_fd: raw(link), flags: 0 };
    // SAFETY: no pointers.
    unsafe { bpf_fd(Cmd::IterCreate, attr.as_mut_bytes()) }
}

/// Replaces the program of a link, atomically.
pub(super) fn link_update(link: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdate { link_fd: raw(link), new_prog_fd: raw(prog), flags: 0, old_prog_fd: 0 };
    // SAFETY: no pointers.
    unsafe { bpf(Cmd::LinkUpdate, attr.as_mut_bytes()) }.map(drop)
}

/// The ids of the programs at a tcx hook of an interface, in the order in which they see a packet.
pub(super) fn programs_at(ifindex: u32, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; MAX_PROGRAMS];
    let mut attr = ProgQuery {
        target: ifindex,
        attach_type,
        prog_ids: pointer_mut(ids.as_mut_bytes()),
        count: MAX_PROGRAMS as u32,
        ..ProgQuery::default()
    };
    // SAFETY: the kernel writes at most `count` ids to `prog_ids`, which is writable for that and takes any bytes, and to
    // members of the attribute, of which none is missing (`bpf_mprog_query` in kernel/bpf/mprog.c).
    unsafe { bpf(Cmd::ProgQuery, attr.as_mut_bytes()) }?;
    Ok(ids.into_iter().take(attr.count as usize).collect())
}

/// Detaches what a link attaches, whoever holds the link.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = raw(link);
    // SAFETY: no pointers.
    unsafe { bpf(Cmd::LinkDetach, attr.as_mut_bytes()) }.map(drop)
}

/// # Safety
/// `key` and `value` must be at least as long as the map's keys and values (a value of a per-CPU map is one of eight
/// bytes' multiple for each possible CPU).
pub(super) unsafe fn map_lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    let mut attr = Elem { map_fd: raw(map), pad: 0, key: pointer(key), value: pointer_mut(value), flags: 0 };
    // SAFETY: the caller's promise.
    unsafe { bpf(Cmd::MapLookupElem, attr.as_mut_bytes()) }.map(drop)
}

/// # Safety
/// As [`map_lookup`]; the kernel reads both.
pub(super) unsafe fn map_update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut attr = Elem { map_fd: raw(map), pad: 0, key: pointer(key), value: pointer(value), flags: 0 };
    // SAFETY: the caller's promise.
    unsafe { bpf(Cmd::MapUpdateElem, attr.as_mut_bytes()) }.map(drop)
}

/// # Safety
/// `key` must be at least as long as the map's keys.
pub(super) unsafe fn map_delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    let mut attr = Elem { map_fd: raw(map), pad: 0, key: pointer(key), value: 0, flags: 0 };
    // SAFETY: the caller's promise.
    unsafe { bpf(Cmd::MapDeleteElem, attr.as_mut_bytes()) }.map(drop)
}

fn batch(cmd: Cmd, attr: &mut Batch) -> (io::Result<()>, u32) {
    // SAFETY: the callers below fill in pointers to buffers whose lengths their own callers vouch for.
    let result = unsafe { bpf(cmd, attr.as_mut_bytes()) }.map(drop);
    (result, attr.count)
}

/// Writes `count` elements; says how many were written.
///
/// # Safety
/// `keys` and `values` must hold `count` keys and values of the map's sizes.
pub(super) unsafe fn map_update_batch(
    map: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: u32,
) -> (io::Result<()>, u32) {
    let (keys, values, map_fd) = (pointer(keys), pointer(values), raw(map));
    batch(
        Cmd::MapUpdateBatch,
        &mut Batch { in_batch: 0, out_batch: 0, keys, values, count, map_fd, elem_flags: 0, flags: 0 },
    )
}

/// Deletes `count` elements; says how many were deleted before one was not there.
///
/// # Safety
/// `keys` must hold `count` keys of the map's size.
pub(super) unsafe fn map_delete_batch(map: BorrowedFd<'_>, keys: &[u8], count: u32) -> (io::Result<()>, u32) {
    let (keys, map_fd) = (pointer(keys), raw(map));
    batch(
        Cmd::MapDeleteBatch,
        &mut Batch { in_batch: 0, out_batch: 0, keys, values: 0, count, map_fd, elem_flags: 0, flags: 0 },
    )
}

/// Reads up to `count` elements from `position` on (empty: from the start) and moves `position`; says how many were read.
///
/// # Safety
/// `keys` and `values` must have room for `count` keys and values of the map's sizes, `position` and `next` for the
/// larger of a key and four bytes.
pub(super) unsafe fn map_lookup_batch(
    map: BorrowedFd<'_>,
    position: Option<&[u8]>,
    next: &mut [u8],
    keys: &mut [u8],
    values: &mut [u8],
    count: u32,
) -> (io::Result<()>, u32) {
    let in_batch = position.map_or(0, pointer);
    let (out_batch, keys, values) = (pointer_mut(next), pointer_mut(keys), pointer_mut(values));
    batch(
        Cmd::MapLookupBatch,
        &mut Batch { in_batch, out_batch, keys, values, count, map_fd: raw(map), elem_flags: 0, flags: 0 },
    )
}

/// The cookie of this thread's network namespace (`SO_NETNS_COOKIE`), as `bpf_get_netns_cookie` gives it.
pub(super) fn netns_cookie() -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").or_else(|_| std::net::UdpSocket::bind("[::]:0"))?;
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: `cookie` is writable for `len` bytes.
    let ret = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut len)
    };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}
