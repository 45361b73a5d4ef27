//! Files that others read at any moment: they are there whole, old or new, or not at all.
//!
//! The CNI plugin, the agent and the reader of objects write theirs by [`put`], so this has as good as no dependencies.
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What a temporary name begins with. Nothing that ends in `.conf`, `.conflist` or `.json` may have one: container
/// runtimes read every such file in their directory.
const TEMPORARY: &str = ".fairlead.tmp-";

/// Why a file is not as it should be.
#[derive(Debug, thiserror::Error)]
#[error("can't {what} {path}: {source}{remedy}")]
pub struct FileError {
    /// What was tried.
    what: &'static str,
    /// The file or directory.
    path: PathBuf,
    /// What the kernel says.
    source: io::Error,
    /// What to do.
    remedy: &'static str,
}

impl FileError {
    /// An error with what to do about it.
    #[must_use]
    pub fn new(what: &'static str, path: &Path, source: io::Error) -> Self {
        let remedy = match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => "; free space or inodes on that file system (`df -h`, `df -i`)",
            Some(libc::EROFS) => "; mount that directory writable (in a pod: a hostPath without readOnly)",
            Some(libc::EPERM | libc::EACCES) => "; run this as root on the node",
            Some(libc::ENOENT) => "; is the node's directory mounted in this container?",
            _ => "",
        };
        Self { what, path: path.to_owned(), source, remedy }
    }
}

impl From<FileError> for io::Error {
    fn from(error: FileError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// There was none.
    New,
    /// It took the place of another.
    Replaced,
    /// It was so already, and was not touched.
    Same,
}

impl Put {
    /// For a person.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "written",
            Self::Replaced => "replaced",
            Self::Same => "up to date",
        }
    }
}

/// Makes a file have this content and mode, by a temporary file that is on the disk before it gets the name. Whoever
/// opens or executes the file meanwhile has the old one or the new one, and after a crash it is one of them too.
///
/// # Errors
/// Something can't be written. The file is as it was then, and nothing else is left.
pub fn put(path: &Path, content: &[u8], mode: u32) -> Result<Put, FileError> {
    let failed = |source| FileError::new("write", path, source);
    let missing = || failed(io::Error::from(io::ErrorKind::InvalidInput));
    let (parent, name) = path.parent().zip(path.file_name()).ok_or_else(missing)?;
    let parent_failed = |source| FileError::new("use the directory", parent, source);
    let is_same = |before: &Option<Vec<u8>>| {
        before.as_deref() == Some(content)
            && path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o7777 == mode)
    };
    if is_same(&fs::read(path).ok()) {
        return Ok(Put::Same);
    }
    let directory = File::open(parent).map_err(parent_failed)?;
    // One writer at a time: whatever has the temporary name is of one that died.
    let _turn = Turn::take(parent).map_err(parent_failed)?;
    let before = fs::read(path).ok();
    if is_same(&before) {
        return Ok(Put::Same);
    }
    let temporary = parent.join(format!("{TEMPORARY}{}", name.to_string_lossy().replace('.', "-")));
    let written = write_new(&temporary, content, mode)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| directory.sync_all());
    if let Err(error) = written {
        // If even that fails the next writer does it.
        let _left = fs::remove_file(&temporary);
        return Err(failed(error));
    }
    Ok(if before.is_some() { Put::Replaced } else { Put::New })
}

/// The turn of a writer in a directory: a file there that nobody else may open, locked (flock(2)) until it is dropped. A directory
/// itself is no lock: any user who may read it can hold that for ever.
struct Turn {
    path: PathBuf,
    _file: File,
}

impl Turn {
    /// The file, which is there only while somebody writes.
    const NAME: &str = ".fairlead.lock";

    /// How often it may be found to be no longer the one that was opened: whoever had it has removed it.
    const ATTEMPTS: u32 = 10_000;

    /// Waits for it.
    fn take(directory: &Path) -> io::Result<Self> {
        let path = directory.join(Self::NAME);
        let own = fs::metadata("/proc/self").map(|own| own.uid()).ok();
        for _ in 0..Self::ATTEMPTS {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
            let file = match options.open(&path) {
                Ok(file) => file,
                // A link, which is somebody else's.
                Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                    remove_if_there(&path)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let meta = file.metadata()?;
            let is_own = own.is_none_or(|own| meta.uid() == own);
            if !meta.is_file() || !is_own || meta.permissions().mode() & 0o077 != 0 {
                remove_if_there(&path)?;
                continue;
            }
            file.lock()?;
            let there = fs::symlink_metadata(&path);
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (meta.dev(), meta.ino())) {
                return Ok(Self { path, _file: file });
            }
        }
        Err(io::Error::other(format!("somebody else makes {} again and again", path.display())))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Still locked. If it stays it is the next one's.
        let _left = fs::remove_file(&self.path);
    }
}

/// What a file is to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amendment {
    /// Its content.
    pub content: Vec<u8>,
    /// Where the file as it is goes first.
    pub copy: Option<PathBuf>,
}

/// How often [`amend`] decides again because somebody else has written meanwhile.
const ATTEMPTS: u32 = 5;

/// Changes a file that others write too: `decide` sees its content, or that there is none, and says what it is to become, or
/// that it may stay. It decides again if the file changed meanwhile, so that a change of another's is not lost, save in the
/// moment of the rename. A file that exists keeps its mode.
///
/// # Errors
/// It can't be read or written, or it changes all the time. The file is as it was then, and nothing else is left.
pub fn amend(
    path: &Path,
    mode: u32,
    mut decide: impl FnMut(Option<&[u8]>) -> Option<Amendment>,
) -> Result<Put, FileError> {
    let failed = |source| FileError::new("write", path, source);
    for _ in 0..ATTEMPTS {
        let before = existing(path)?;
        let Some(Amendment { content, copy }) = decide(before.as_deref()) else { return Ok(Put::Same) };
        let mode = path.metadata().map_or(mode, |meta| meta.permissions().mode() & 0o7777);
        if let (Some(copy), Some(before)) = (copy, &before) {
            put(&copy, before, mode)?;
        }
        if existing(path)? == before {
            return put(path, &content, mode);
        }
    }
    Err(failed(io::Error::other("it changes all the time; which program writes it?")))
}

fn existing(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::new("read", path, source)),
    }
}

/// The file is closed when this returns: what somebody still writes can't be executed.
fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    remove_if_there(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    // Whatever the umask is.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Makes a directory and those above it.
///
/// # Errors
/// It can't be made.
pub fn directory(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(|source| FileError::new("make the directory", path, source))
}

/// Removes a file. Says whether there was one.
///
/// # Errors
/// It can't be removed.
pub fn remove(path: &Path) -> Result<bool, FileError> {
    remove_if_there(path).map_err(|source| FileError::new("remove", path, source))
}

/// The same, with the kernel's word.
fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A file that its holder keeps locked for as long as it lives (flock(2)), and in which it says how it is.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Locks a file, which is made if it is not there. `None`: somebody else has it.
    ///
    /// # Errors
    /// It can't be made.
    pub fn take(path: &Path) -> Result<Option<Self>, FileError> {
        let failed = |source| FileError::new("lock", path, source);
        let mut options = OpenOptions::new();
        // Whoever may write in the directory could have others' files written by a link.
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::other("it is no file: find out who made it, and remove it")));
        }
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { path: path.to_owned(), file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Whether others still find it: somebody may have removed the file, and then another may lock one of that name.
    #[must_use]
    pub fn is_found(&self) -> bool {
        let inode = |meta: fs::Metadata| (meta.dev(), meta.ino());
        self.path.metadata().ok().map(inode).zip(self.file.metadata().ok().map(inode)).is_some_and(|(a, b)| a == b)
    }

    /// Says how the holder is: in place of what it said before.
    ///
    /// # Errors
    /// It can't be written.
    pub fn say(&self, text: &str) -> Result<(), FileError> {
        // What is there is overwritten: that takes no space, and a reader never finds nothing.
        let before = self.file.metadata().map_or(0, |meta| usize::try_from(meta.len()).unwrap_or_default());
        let over = "\n".repeat(before.saturating_sub(text.len()));
        let written = self.file.write_all_at(format!("{text}{over}").as_bytes(), 0);
        let written = written.and_then(|()| self.file.set_len(text.len() as u64));
        written.map_err(|source| FileError::new("write", &self.path, source))
    }

    /// Whether somebody holds the lock of this file.
    #[must_use]
    pub fn is_held(path: &Path) -> bool {
        File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// What its holder says. `None`: it has none.
    #[must_use]
    pub fn said(path: &Path) -> Option<String> {
        Self::is_held(path).then(|| fs::read_to_string(path).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that goes with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("fairlead-file-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _left = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_is_new_then_the_same_then_replaced() {
        let scratch = Scratch::new("states");
        let path = scratch.0.join("10-x.conflist");
        assert_eq!(put(&path, b"one", 0o644).unwrap(), Put::New);
        let inode = |path: &Path| path.metadata().unwrap().ino();
        let first = inode(&path);
        assert_eq!(put(&path, b"one", 0o644).unwrap(), Put::Same);
        assert_eq!(inode(&path), first, "what is right is not touched");
        assert_eq!(put(&path, b"two", 0o644).unwrap(), Put::Replaced);
        assert_eq!(put(&path, b"two", 0o755).unwrap(), Put::Replaced, "the mode counts too");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o755);
        let left: Vec<_> = fs::read_dir(&scratch.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["10-x.conflist"], "no temporary file is left");
        assert!(remove(&path).unwrap() && !remove(&path).unwrap());
    }

    #[test]
    fn what_a_killed_writer_left_is_in_nobodys_way() {
        let scratch = Scratch::new("killed");
        fs::write(scratch.0.join(".fairlead.tmp-10-x-conflist"), "half").unwrap();
        assert_eq!(put(&scratch.0.join("10-x.conflist"), b"whole", 0o644).unwrap(), Put::New);
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1);
    }

    #[test]
    fn whoever_may_only_read_a_directory_holds_nobody_up() {
        let scratch = Scratch::new("held");
        let reader = File::open(&scratch.0).unwrap();
        reader.lock().unwrap();
        assert_eq!(put(&scratch.0.join("x"), b"one", 0o644).unwrap(), Put::New);
        // Nor does a lock of somebody else's making: one that others may open, and a link.
        let lock = scratch.0.join(Turn::NAME);
        fs::write(&lock, "").unwrap();
        fs::set_permissions(&lock, fs::Permissions::from_mode(0o644)).unwrap();
        let open = File::open(&lock).unwrap();
        open.lock().unwrap();
        assert_eq!(put(&scratch.0.join("x"), b"two", 0o644).unwrap(), Put::Replaced);
        std::os::unix::fs::symlink("/dev/null", &lock).unwrap();
        assert_eq!(put(&scratch.0.join("x"), b"three", 0o644).unwrap(), Put::Replaced);
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1);
    }

    #[test]
    fn writers_take_turns_and_leave_one_whole_file() {
        let scratch = Scratch::new("turns");
        let path = scratch.0.join("x");
        std::thread::scope(|scope| {
            for letter in b'a'..b'i' {
                let path = &path;
                scope.spawn(move || {
                    for length in 1..40 {
                        put(path, &vec![letter; length * 1000], 0o644).unwrap();
                        let found = fs::read(path).unwrap();
                        assert!(found.len().is_multiple_of(1000) && found.iter().all(|byte| *byte == found[0]));
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1);
    }

    #[test]
    fn what_others_write_meanwhile_is_decided_upon_and_the_mode_is_kept() {
        let scratch = Scratch::new("amend");
        let path = scratch.0.join("x");
        let to = |content: &[u8]| Some(Amendment { content: content.to_vec(), copy: None });
        assert_eq!(amend(&path, 0o644, |_| None).unwrap(), Put::Same);
        assert!(!path.exists());
        fs::write(&path, "one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut seen = Vec::new();
        let copy = scratch.0.join("copy");
        let put = amend(&path, 0o644, |content| {
            seen.push(content.map(<[u8]>::to_vec));
            if seen.len() == 1 {
                fs::write(&path, "two").unwrap();
            }
            Some(Amendment { content: b"three".to_vec(), copy: Some(copy.clone()) })
        });
        assert_eq!(put.unwrap(), Put::Replaced);
        assert_eq!(seen, [Some(b"one".to_vec()), Some(b"two".to_vec())]);
        assert_eq!(fs::read(&copy).unwrap(), b"two");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        let restless = amend(&path, 0o644, |content| {
            fs::write(&path, [content.unwrap_or_default(), b"."].concat()).unwrap();
            to(b"four")
        });
        assert!(restless.unwrap_err().to_string().contains("all the time"));
    }

    #[test]
    fn a_lock_is_held_by_one_and_by_nobody_after_it() {
        let scratch = Scratch::new("lock");
        let path = scratch.0.join("keeper");
        assert!(!Lock::is_held(&path));
        let lock = Lock::take(&path).unwrap().unwrap();
        assert!(Lock::is_held(&path) && lock.is_found() && Lock::take(&path).unwrap().is_none());
        lock.say("a long text").unwrap();
        lock.say("short").unwrap();
        assert_eq!(Lock::said(&path).as_deref(), Some("short"));
        // A reader who comes at any moment finds something.
        std::thread::scope(|scope| {
            let said = scope.spawn(|| (0..10_000).filter_map(|_| Lock::said(&path)).all(|said| said.starts_with("s")));
            (0..2_000).for_each(|turn| lock.say(if turn % 2 == 0 { "s" } else { "something longer" }).unwrap());
            assert!(said.join().unwrap());
        });
        fs::remove_file(&path).unwrap();
        assert!(!lock.is_found() && !Lock::is_held(&path));
        let next = Lock::take(&path).unwrap().unwrap();
        assert!(next.is_found() && !lock.is_found());
        drop(next);
        assert_eq!((Lock::is_held(&path), Lock::said(&path)), (false, None));
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = put(Path::new("/nonexistent/fairlead/x"), b"", 0o644).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/fairlead:") && error.contains("mounted"), "{error}");
    }

    #[test]
    fn a_lock_follows_no_link() {
        let directory = std::env::temp_dir().join(format!("fairlead-lock-link-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let (target, lock) = (directory.join("of-others"), directory.join("keeper"));
        fs::write(&target, "theirs").unwrap();
        std::os::unix::fs::symlink(&target, &lock).unwrap();
        let refused = Lock::take(&lock).map(|lock| lock.is_some());
        let content = fs::read_to_string(&target).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert!(refused.is_err() && content == "theirs", "{refused:?} {content}");
    }
}
