//! What the socket hooks remember, read from the kernel by an iterator's program (`ebpf/programs/src/sock/list.rs`).

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};

use aya::programs::{Iter, ProgramError};
use aya::{Btf, Ebpf};
use fairlead_datapath::catalog::TableId;
use fairlead_datapath::service::sock::ListedSocket;
use fairlead_objects::causes;
use zerocopy::FromBytes as _;

use super::{Tables, sys};

/// The program, and what it iterates over (`bpf_iter_bpf_sk_storage_map`).
pub(super) const PROGRAM: &str = "list_sockets";
const ELEMENTS: &str = "bpf_sk_storage_map";

/// A list of sockets that can be read at any time.
#[derive(Debug)]
pub struct SocketList {
    link: OwnedFd,
}

/// What the kernel gives with one read: 8 pages (`bpf_seq_read`).
const BUFFER: usize = 32 << 10;

impl SocketList {
    /// Loads the program and attaches it to `SOCKETS`.
    pub(super) fn new(ebpf: &mut Ebpf, tables: &Tables) -> Result<Self, String> {
        let load = |ebpf: &mut Ebpf| -> Result<OwnedFd, ProgramError> {
            let program = ebpf.program_mut(PROGRAM).ok_or(ProgramError::NotLoaded)?;
            let program: &mut Iter = program.try_into()?;
            program.load(ELEMENTS, &Btf::from_sys_fs()?)?;
            program.fd()?.as_fd().try_clone_to_owned().map_err(ProgramError::IOError)
        };
        let program = load(ebpf).map_err(|error| causes(&error))?;
        let map = tables.map(TableId::Sockets).map_err(|error| causes(&error))?;
        let link = sys::iter_link_create(program.as_fd(), map.as_fd()).map_err(|error| error.to_string())?;
        Ok(Self { link })
    }

    /// Every socket of which the hooks remember something, in every network namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn read(&self) -> io::Result<Vec<ListedSocket>> {
        let mut bytes = self.read_once()?;
        // Between two reads the kernel finds its place by counting, and passes over a socket for each that went meanwhile.
        if bytes.len() + size_of::<ListedSocket>() > BUFFER {
            bytes.extend(self.read_once()?);
        }
        let (sockets, _) = bytes.as_chunks::<{ size_of::<ListedSocket>() }>();
        Ok(sockets.iter().filter_map(|socket| ListedSocket::read_from_bytes(socket).ok()).collect())
    }

    fn read_once(&self) -> io::Result<Vec<u8>> {
        let mut file = File::from(sys::iter_create(self.link.as_fd())?);
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; BUFFER]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(bytes),
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
    }
}
