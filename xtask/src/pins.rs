//! Versions that something depends on, each with its reason. Everything else takes what the machine has.

/// The compiler of the eBPF object. Another one makes other bytes, and `cargo xtask ebpf --check` compares bytes. Its
/// `rust-objcopy` strips the object, so that tool needs no pin of its own. What runs on the host builds with any newer
/// compiler.
pub(crate) const RUSTC: &str = "1.95.0";

/// The linker of the eBPF object, built against the LLVM of [`RUSTC`], which is what keeps the two in step.
pub(crate) const BPF_LINKER: &str = "0.13.0";

/// The feature of bpf-linker that names the major version of the LLVM of [`RUSTC`].
pub(crate) const BPF_LINKER_LLVM: &str = "llvm-22";

/// What checks licences, sources and duplicates of dependencies. Pinned, since a new version brings new findings.
pub(crate) const CARGO_DENY: &str = "0.20.2";

/// What makes pages of the book. Pinned, since what it makes of headings is what links lead to.
pub(crate) const MDBOOK: &str = "0.4.52";

/// The Debian suite that has the source of [`RUSTC`]'s core library, for machines where rustup can't fetch it.
pub(crate) const RUST_SRC_SUITE: &str = "trixie-backports";

/// The kernels that the object must load on besides the running one: 6.1 is the oldest that Fairlead supports, and has
/// the strictest verifier; 6.12 is the next long-term one with tcx. A series, not a version: mirrors drop old builds.
pub(crate) const KERNELS: [&str; 2] = ["6.1", "6.12"];

/// The Debian suite whose archive has a build of each of [`KERNELS`].
pub(crate) const KERNEL_SUITE: &str = "bookworm";

/// The Debian suite of test images: any that has the tools will do.
pub(crate) const TEST_ROOT_SUITE: &str = "bookworm";

/// The most instructions that the verifier may walk in one program, on [`BUDGET_KERNEL`]. The kernel's own limit is a
/// million (BPF_COMPLEXITY_LIMIT_INSNS); the distance is for kernels and compilers to come.
pub(crate) const INSTRUCTION_BUDGET: u32 = 72_000;

/// The kernel that the budget is measured on: its verifier prunes least.
pub(crate) const BUDGET_KERNEL: &str = "6.1";
