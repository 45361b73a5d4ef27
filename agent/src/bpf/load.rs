//! From the object to loaded programs and adopted maps.

use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader};
use fairlead_datapath::catalog::TableId;
use fairlead_objects::causes;
use tracing::{debug, info};

use super::attach::has_tcx;
use super::migrate::{Migration, migrate};
use super::survey::Survey;
use super::{BpfError, ObjectFile, PinDir, SocketList, Tables, layouts, packet_log, pause, socket_list, sys};

/// Bytes of a verifier log that an error shows.
const LOG_END: usize = 1200;

/// What is in the kernel now.
#[derive(Debug)]
pub struct Loaded {
    /// The programs, not attached.
    pub ebpf: Ebpf,
    /// The maps.
    pub tables: Tables,
    /// What the kernel says of each program.
    pub programs: Vec<ProgramInfo>,
    /// Whether maps of an earlier agent were adopted.
    pub adopted: bool,
    /// What was read from tables of other versions.
    pub migrated: Vec<Migration>,
    /// The list of what the socket hooks remember, or why the kernel gives none.
    pub socket_list: Result<SocketList, String>,
}

/// What the kernel says of a program.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ProgramInfo {
    /// Its name.
    pub name: String,
    /// Instructions that the verifier walked through (the budget is 70 000 on 6.1).
    pub verified_instructions: Option<u32>,
}

/// Loads every program, with maps that are pinned below `pins`: an earlier agent's where they are. What is pinned in another
/// version is read into new ones, and packet programs that are attached are replaced then.
///
/// Call it in the network namespace of the node: the programs know it by its cookie.
///
/// # Errors
/// A pinned map can't be read, or the kernel refuses the object.
pub fn load(object: &ObjectFile, pins: &PinDir) -> Result<Loaded, BpfError> {
    load_by(object, pins, has_tcx())
}

/// The same, as on kernels without tcx.
///
/// # Errors
/// As [`load`].
pub fn load_without_tcx(object: &ObjectFile, pins: &PinDir) -> Result<Loaded, BpfError> {
    load_by(object, pins, false)
}

/// Ends the pause of an agent that ended in it: where there is no tcx, no packet passes until then.
pub fn clear_pause() {
    if !has_tcx() {
        pause::clear();
    }
}

fn load_by(object: &ObjectFile, pins: &PinDir, tcx: bool) -> Result<Loaded, BpfError> {
    if !tcx {
        pause::clear();
    }
    let definition = object.definition()?;
    definition.check()?;
    let survey = Survey::of(pins)?;
    let adopted = survey.adopted;
    // The loader pins tables before the kernel has seen the programs, and whoever finds a table needs to find what it is.
    TableId::ALL.iter().filter_map(|&id| layouts::describe(pins, id)).try_for_each(|made| made.map(drop))?;
    let cookie = sys::netns_cookie()
        .map_err(|e| BpfError::Load(format!("can't get the cookie of the network namespace: {e}")))?;

    let mut loader = EbpfLoader::new();
    for (table, path) in TableId::ALL.iter().filter_map(|&id| Some((id, survey.path(id, pins)?))) {
        loader.map_pin_path(table.info().name, path);
    }
    loader.override_global("HOST_NETNS_COOKIE", &cookie, false);
    let log_level = packet_log::level();
    loader.override_global(packet_log::GLOBAL, &log_level, false);
    let mut ebpf = loader.load(object.bytes()).map_err(|error| BpfError::Load(causes(&error)))?;

    let mut programs = Vec::new();
    for (name, program) in ebpf.programs_mut().filter(|(name, _)| *name != socket_list::PROGRAM) {
        let loaded = match program {
            Program::SchedClassifier(p) => p.load(),
            Program::CgroupSockAddr(p) => p.load(),
            Program::CgroupSock(p) => p.load(),
            Program::Xdp(p) => p.load(),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        loaded.map_err(|error| refused(name, error))?;
        let verified_instructions = program.info().ok().and_then(|info| info.verified_instruction_count());
        debug!(name, verified_instructions, "program loaded");
        programs.push(ProgramInfo { name: name.to_owned(), verified_instructions });
    }
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    info!(programs = programs.len(), maps = definition.maps.len(), adopted, "eBPF object loaded");
    let Survey { old, unknown, adopted: _ } = survey;
    let migrated = migrate(old, &ebpf, &definition, pins, tcx)?;
    Survey::forget(unknown, pins)?;
    let tables = Tables::open(&definition, pins)?;
    layouts::remove_orphans(pins)?;
    let socket_list = SocketList::new(&mut ebpf, &tables);
    sys::trim_heap();
    Ok(Loaded { ebpf, tables, programs, adopted, migrated, socket_list })
}

fn refused(name: &str, error: ProgramError) -> BpfError {
    let program = name.to_owned();
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let start = log.char_indices().rev().nth(LOG_END).map_or(0, |(at, _)| at);
            let log = log.get(start..).unwrap_or_default().to_owned();
            BpfError::Program { program, source: io_error, log }
        }
        other => BpfError::Program { program, source: std::io::Error::other(causes(&other)), log: String::new() },
    }
}
