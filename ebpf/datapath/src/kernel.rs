//! What a program asks of the kernel, as a trait: the programs implement it with maps and helpers, the tests with
//! hash maps and a vector.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::overlay::Outer;
use crate::policy::{Common, HitKey, Outcome, PortKey};
use crate::register::{Answer, Arguments};
use crate::scratch::{Counted, Question, Walk};
use crate::tables::bandwidth::{Bandwidth, Pace};
use crate::tables::config::{Config, Uplink};
use crate::tables::dns::{DnsFacts, DnsName, DnsZone};
use crate::tables::errors::Receiver;
use crate::tables::flow::{Entry, Flow, FlowKey};
use crate::tables::{flow, peer, policy, service};
use crate::{Addr, Long, Word};

/// The kernel under a packet: its bytes, its metadata, the tables, the clock and chance.
///
/// Offsets count from the Ethernet header. Methods take `&self`: the kernel keeps the packet, the walk keeps what it
/// has read of it.
pub trait Kernel: flow::Tables + peer::Tables + policy::Tables + service::Tables {
    /// Length of the packet with its Ethernet header, all segments of an aggregate together.
    fn packet_len(&self) -> u32;

    /// Payload of each segment when the packet is an aggregate (GSO), else 0.
    fn segment_size(&self) -> u32;

    /// Has [`Kernel::load`] and [`Kernel::store`] reach to an offset, or to the packet's end. Without it they reach what headers
    /// need at most, but for those of a packet that is quoted.
    fn reach(&self, end: u32);

    /// Bytes at an offset, or `None` when the packet ends before.
    fn load<T: FromBytes>(&self, offset: u32) -> Option<T>;

    /// Overwrites bytes; false when the packet ends before.
    fn store<T: IntoBytes + Immutable>(&self, offset: u32, value: &T) -> bool;

    /// Adds a difference (see [`crate::packet::csum`]) to the L4 checksum at an offset, in the way that fits how far
    /// the kernel has computed it. `pseudo`: what changed is part of the pseudo-header. `udp`: zero means no checksum.
    fn adjust_l4_csum(&self, offset: u32, diff: u32, pseudo: bool, udp: bool) -> bool;

    /// Says that an IPv6 header has changed by a difference. A network card may have given the kernel the sum over the
    /// packet's bytes (`CHECKSUM_COMPLETE`), and there is no header checksum to make up for the change, which
    /// `bpf_l4_csum_replace` with a pseudo-header counts on (`inet_proto_csum_replace_by_diff` in net/core/utils.c).
    fn sum_changed(&self, diff: u32);

    /// Copies bytes of the packet, one to [`Question::BYTES`], wherever they are; false when it ends before.
    fn read_into(&self, offset: u32, length: u32, into: &mut [u64; Question::WORDS]) -> bool;

    /// Cuts the packet to a length, or makes it longer, by zeros.
    fn cut(&self, len: u32) -> bool;

    /// Makes room for so many bytes between the Ethernet header and what follows it.
    fn make_room(&self, bytes: u32) -> bool;

    /// The interface that the program runs on.
    fn ifindex(&self) -> u32;

    /// The interface that the packet came in by, 0 when the node itself made it.
    fn ingress_ifindex(&self) -> u32;

    /// Whether a socket of the node has sent the packet: what comes in has none once the stack has it (`ip6_rcv_core` in
    /// net/ipv6/ip6_input.c), nor has what that forwards.
    fn has_socket(&self) -> bool;

    /// Where the node's routes lead a packet of this length (without an Ethernet header), with the tuple that it is to get.
    fn route(&self, w: &mut Walk, length: u32) -> Onward;

    /// The outside of a packet that came through the tunnel.
    fn outer(&self) -> Option<Outer>;

    /// The VLAN that the frame is tagged for, 0 for a tag that only gives a priority; `None` without a tag (802.1Q).
    fn vlan(&self) -> Option<u16>;

    /// Takes the tag off.
    fn untag(&self) -> bool;

    /// The packet's mark.
    fn mark(&self) -> u32;

    /// Seconds since boot, by a clock that is cheap to read.
    fn seconds(&self) -> u32;

    /// Nanoseconds since boot, by the clock that departure times are in.
    fn nanoseconds(&self) -> u64;

    /// Has the packet leave at a time, by that clock, where a queue keeps it until then. Anywhere else it means nothing.
    fn depart_at(&self, time: u64);

    /// A random number.
    fn random(&self) -> u32;

    /// Adds to a word, atomically.
    fn add(&self, word: &Long, by: i64);

    /// What a word counts, as [`Long::count`] says.
    #[inline(always)]
    fn count(&self, word: &Long) -> u64 {
        let value = word.load();
        // No branch: see [`Self::plain`].
        value & self.plain(value >> 63).wrapping_sub(1)
    }

    /// Sets bits of a word, atomically.
    fn set_bits(&self, word: &Long, bits: u64);

    /// Clears bits of a word, atomically.
    fn clear_bits(&self, word: &Long, bits: u64);

    /// Gives a word another value if it has this one, atomically. True if it had: of all CPUs that try, one gets that.
    fn swap_if(&self, word: &Long, old: u64, new: u64) -> bool;

    /// The node's settings.
    fn config(&self) -> Option<&Config>;

    /// The addresses of an uplink.
    fn uplink(&self, ifindex: u32) -> Option<Uplink>;

    /// What the pod in a slot may send and receive in a second.
    fn bandwidth(&self, slot: u16) -> Option<&Bandwidth>;

    /// How far it has gone with that.
    fn pace(&self, slot: u16) -> Option<&Pace>;

    /// When the next error's turn is, of a bucket of [`crate::errors`]. In nanoseconds since boot.
    fn error_turn(&self, index: u32) -> Option<&Long>;

    /// Counts an error that is not sent, since its receiver has got too many.
    fn count_unsent(&self, to: Receiver);

    /// Counts a flow that was made, or a packet that is dropped, to a rule that is counted.
    fn count_hit(&self, key: &HitKey, denied: bool);

    /// For whom, how and until when DNS is answered here.
    fn dns_zone(&self) -> Option<&DnsZone>;

    /// What is at a name of that zone: [`DnsFacts::is_of`] says whether it is that name's.
    fn dns_name(&self, name: &DnsName) -> Option<DnsFacts>;

    /// Counts an answer, a [`crate::dns::DnsAnswer`] as a number.
    fn count_dns(&self, answer: u32);

    /// Whether a socket of the node itself would take packets of a flow's responder to its opener: then the opener's
    /// port is not free to be given to somebody else's flow. `key` holds both ends, `opener_is_a` says which is which.
    fn host_socket(&self, key: &FlowKey, opener_is_a: bool) -> bool;

    /// A word that is not zero once a client outside has been sent to a process of the node as a service's backend.
    fn host_flows(&self) -> Option<&Word>;

    /// Copies an entry of a flow, as [`Entry::read_all`] does: in a program that is a function of its own, like a stage.
    #[inline(always)]
    fn copy(&self, entry: &Entry, key: u32, into: &mut Flow) -> bool {
        entry.read_all(key, into)
    }

    /// Notes an entry in what it is counted by, as `Counted::set` does: in a program by a function of its own, like a stage.
    #[inline(always)]
    fn note_counted(&self, counted: &mut Counted, key: &FlowKey, flow: &Flow) {
        counted.set(key, flow);
    }

    /// Whether a flow that has been idle for so long has expired, as `flow::outlived` says: in a program by a function of its
    /// own, like a stage.
    fn outlived(&self, idle: u32, proto: u8, state: u32) -> bool;

    /// What a class and a port meet of a page of a policy set, as [`crate::policy::page`] says: in a program by a function of its own, like
    /// a stage.
    ///
    /// # Errors
    ///
    /// A row is missing, or belonged to somebody else.
    #[inline(always)]
    fn policy_page(&self, key: PortKey, class: u32, ranges: bool) -> Result<Common, Outcome>
    where
        Self: Sized,
    {
        crate::policy::page(self, key, class, ranges)
    }

    /// A number that the compiler knows nothing of: of what is 0 or 1 to it, it makes branches, of which the verifier follows both.
    #[inline(always)]
    fn plain(&self, number: u64) -> u64 {
        number
    }

    /// A number in scratch memory, read again. What a verifier knows of a number that a program computed or compared it follows up,
    /// one case after the other, wherever it comes to matter; of one out of memory it knows nothing, and the cases become one.
    #[inline(always)]
    fn reread<T: Copy>(&self, number: &T) -> T {
        *number
    }

    /// Goes through a stage: a part of a walk that is rare or large. A program makes each a function of its own, which the
    /// verifier checks once and whose variables are not on the walk's stack; everywhere else it is a plain call.
    #[inline(always)]
    fn enter<S: Stage>(&self, w: &mut Walk, arguments: S::Arguments) -> S::Answer
    where
        Self: Sized,
    {
        S::run(self, w, arguments)
    }
}

/// What a program at the driver of an interface asks for besides.
pub trait Driver: Kernel {
    /// The next hop of a packet of this length (without an Ethernet header) that has the tuple `draft.target`: where the node's routes
    /// lead to `next`, who then has to be on the link, or with `::` to the packet's destination. Nothing unless all is known, and
    /// the packet can be sent there from here.
    fn hop(&self, w: &mut Walk, next: Addr, length: u32) -> Option<Hop>;
}

/// A next hop, and by what Ethernet addresses it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The interface.
    pub ifindex: u32,
    /// Its address and the interface's own, as in an Ethernet header.
    pub macs: [[u8; 6]; 2],
}

/// Where the node's routes lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Onward {
    /// The interface, 0 if it is not known.
    pub ifindex: u32,
    /// The largest packet that goes that way, 0 if it is not known.
    pub mtu: u32,
}

impl Onward {
    /// There is no route.
    pub const NOWHERE: Self = Self { ifindex: 0, mtu: 0 };

    /// The largest packet that goes that way, or another size where that is not known.
    #[inline(always)]
    #[must_use]
    pub const fn mtu_or(self, other: u32) -> u32 {
        if self.mtu == 0 { other } else { self.mtu }
    }
}

/// A part of a walk that is a function of its own in a program. [`stages!`] makes them.
pub trait Stage {
    /// What it takes besides the packet and what the walk remembers.
    type Arguments: Arguments;
    /// What it answers.
    type Answer: Answer;
    /// By which a program knows it: the path of the function that it runs.
    const NAME: &'static str;

    /// Runs it.
    fn run<K: Kernel>(k: &K, w: &mut Walk, arguments: Self::Arguments) -> Self::Answer;
}

/// Makes stages of a module's functions. For each a function of the same name is in the module's `stage`, by which walks
/// enter it, and a type, by which a program names it.
macro_rules! stages {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $answer:ty, as $stage:ident;)+) => {
        /// The functions of this module that are stages, as a walk enters them.
        pub(crate) mod stage {
            use super::*;

            $(#[doc = concat!("[`", stringify!($name), "`](super::", stringify!($name), ")")]
            #[inline(always)]
            pub fn $name<K: $crate::kernel::Kernel>(
                k: &K,
                w: &mut $crate::scratch::Walk,
                $($argument: $type),*
            ) -> $answer {
                k.enter::<$stage>(w, ($($argument,)*))
            }

            #[doc = concat!("The stage that is [`", stringify!($name), "`](super::", stringify!($name), ")")]
            #[derive(Debug)]
            pub struct $stage;

            impl $crate::kernel::Stage for $stage {
                type Arguments = ($($type,)*);
                type Answer = $answer;
                const NAME: &'static str = concat!(module_path!(), "::", stringify!($name));

                #[inline(always)]
                fn run<K: $crate::kernel::Kernel>(
                    k: &K,
                    w: &mut $crate::scratch::Walk,
                    ($($argument,)*): Self::Arguments,
                ) -> $answer {
                    super::$name(k, w, $($argument),*)
                }
            })+
        }
    };
}
pub(crate) use stages;
