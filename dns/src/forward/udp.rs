//! Questions over UDP: a few sockets for each server, each with a table of what was asked on it.
//!
//! A socket for each question would cost five system calls instead of two. What guards an answer against forgery stays
//! nearly the same. Who forges one for a name must guess its id (16 bits) and the port of the socket it was asked on
//! (the node's range has 28 232 ports, 14.7 bits): 30.7 bits together, since ports are random and a question is never in
//! flight twice. Somebody who has found the open ports out is left with the id, one of [`SOCKETS`] (3 bits), and one bit
//! for each letter of the name, whose case is random: 19 bits and the letters, 32 for `www.example.org`. Ports don't stay
//! long enough to be found out: [`QUESTIONS`] or [`AGE`].

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use super::question::Question;
use super::trouble::Trouble;
use super::waiting::{Given, Heard, Hears, Seat, Waiting};
use crate::counter::Counter;
use crate::random;

/// How many sockets a server has.
const SOCKETS: usize = 8;
/// After how many questions a socket is given up: this many, and up to twice as many.
const QUESTIONS: usize = 256;
/// After which time it is.
const AGE: Duration = Duration::from_secs(30);

thread_local! {
    /// Where a datagram is read to: servers that ignore what size is offered send up to this.
    static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; 65535]);
}

/// The sockets of one server.
pub(super) struct Pool {
    to: SocketAddr,
    sockets: Mutex<Vec<Arc<Socket>>>,
    /// Questions on a socket that was there, and on a new one.
    pub(super) reused: Counter,
    pub(super) opened: Counter,
}

pub(super) struct Socket {
    shared: Arc<Shared>,
    reader: AbortHandle,
    left: AtomicUsize,
    born: Instant,
}

struct Shared {
    socket: UdpSocket,
    waiting: Waiting,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Pool {
    pub(super) fn new(to: SocketAddr) -> Self {
        Self { to, sockets: Mutex::default(), reused: Counter::default(), opened: Counter::default() }
    }

    /// Asks, and waits for as long as the caller does.
    pub(super) async fn ask(&self, question: &Question, spelled: bool, edns: bool) -> io::Result<Heard> {
        let socket = self.pick()?;
        let section = question.section(spelled);
        let (entry, heard) = socket.shared.waiting.enter(&section, spelled)?;
        let message = question.message(entry.id, &section, edns);
        let mut sent = socket.shared.socket.send(&message).await;
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            // That came of an earlier question. The kernel says it once, to whatever is done next.
            sent = socket.shared.socket.send(&message).await;
        }
        sent?;
        heard.await.map_err(|_| io::ErrorKind::ConnectionRefused.into())
    }

    /// Gives sockets up that are old.
    pub(super) fn renew(&self) {
        self.lock().retain(|socket| socket.born.elapsed() < AGE);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Socket>>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A socket to ask on. It may be its last question: it is read for as long as somebody has it.
    pub(super) fn pick(&self) -> io::Result<Arc<Socket>> {
        let mut sockets = self.lock();
        let index = random::below(SOCKETS);
        if let Some(socket) = sockets.get(index).cloned() {
            if socket.left.fetch_sub(1, Ordering::Relaxed) <= 1 || socket.born.elapsed() >= AGE {
                // The last question on it; it stays until that is answered.
                sockets.swap_remove(index);
            }
            self.reused.increment();
            return Ok(socket);
        }
        let socket = Arc::new(Socket::open(self.to)?);
        sockets.push(Arc::clone(&socket));
        self.opened.increment();
        Ok(socket)
    }
}

impl Socket {
    fn open(to: SocketAddr) -> io::Result<Self> {
        let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // The kernel chooses the port at random. Connected, it takes datagrams from that server only, and learns when
        // nobody listens there.
        let socket = std::net::UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        let shared = Arc::new(Shared { socket: UdpSocket::from_std(socket)?, waiting: Waiting::default() });
        let reader = tokio::spawn(read(Arc::clone(&shared))).abort_handle();
        let left = AtomicUsize::new(QUESTIONS + random::below(QUESTIONS));
        Ok(Self { shared, reader, left, born: Instant::now() })
    }

    /// Asks for one who does not wait, and says where the question is in the table before it is sent.
    pub(super) fn ask(&self, question: &Question, who: Arc<dyn Hears>, at: impl FnOnce(Seat)) -> io::Result<()> {
        let section = question.section(true);
        let seat = self.shared.waiting.enter_direct(&section, who)?;
        at(seat);
        let message = question.message(seat.id, &section, true);
        let send = || send(self.shared.socket.as_raw_fd(), &message, MsgFlags::MSG_DONTWAIT);
        // The first error may have come of an earlier question.
        let sent = send().or_else(|error| if error == Errno::ECONNREFUSED { send() } else { Err(error) });
        if sent.is_err() {
            self.leave(&seat);
        }
        sent?;
        Ok(())
    }

    /// Nobody waits for the answer any more.
    pub(super) fn leave(&self, seat: &Seat) {
        self.shared.waiting.leave(seat);
    }
}

async fn read(shared: Arc<Shared>) {
    // That nobody listens there makes a socket fail, and not readable. Each is cleared by itself: what tokio has for
    // both together clears neither.
    while shared.socket.ready(Interest::READABLE | Interest::ERROR).await.is_ok() {
        BUFFER.with_borrow_mut(|buffer| {
            shared.receive(Interest::READABLE, buffer);
            shared.receive(Interest::ERROR, buffer);
        });
    }
}

impl Shared {
    /// Takes what has come.
    fn receive(&self, interest: Interest, buffer: &mut [u8]) {
        let socket = self.socket.as_raw_fd();
        loop {
            match self.socket.try_io(interest, || Ok(recv(socket, buffer, MsgFlags::MSG_DONTWAIT)?)) {
                Ok(length) => {
                    let message = buffer.get(..length).unwrap_or_default();
                    if let Given::Direct(who, found) = self.waiting.give(message) {
                        who.hear(found, message);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Nobody listens there, or there is no way to it.
                Err(error) => {
                    let trouble = Trouble::from(error);
                    return self.waiting.fail().into_iter().for_each(|who| who.fails(trouble.clone()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::Wants;
    use crate::wire::RecordType;

    #[tokio::test]
    async fn what_came_of_an_earlier_question_is_not_said_of_the_next() {
        // An address of its own: nobody else listens there meanwhile.
        let [.., a, b] = std::process::id().to_be_bytes();
        let to = SocketAddr::from(([127, 53, a, b], 1053));
        let socket = Arc::new(Socket::open(to).unwrap());
        let pool = Pool::new(to);
        *pool.lock() = vec![Arc::clone(&socket); SOCKETS];
        socket.shared.socket.writable().await.unwrap();
        // The error is there at once, and nobody sees it before the next question is sent.
        send(socket.shared.socket.as_raw_fd(), b"?", MsgFlags::empty()).unwrap();
        let listener = std::net::UdpSocket::bind(to).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = UdpSocket::from_std(listener).unwrap();
        let question = Question::new(b"\x07example\x00", RecordType::A, Wants::default());
        let answering = async {
            let mut message = [0; 512];
            let (length, from) = listener.recv_from(&mut message).await.unwrap();
            message[2] |= 0x80;
            listener.send_to(&message[..length], from).await.unwrap();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            heard = pool.ask(&question, true, false) => assert!(matches!(heard.unwrap(), Heard::Answer(_))),
            () = answering => {}
        }
    }
}
